// `node fetch.mjs URL`: node's own fetch, which in this version knows no proxy.
const answer = await fetch(process.argv[2], { signal: AbortSignal.timeout(8000) });
process.stdout.write(await answer.text());
process.exit(answer.ok ? 0 : 1);
