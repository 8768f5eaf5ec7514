# Ordinary work of a session, for test_exec_ordinary.py; runs in an empty directory.
cd $(mktemp -d) || exit 1
/usr/bin/python3 -m venv v --without-pip; v/bin/python -c 'print(1)'; . v/bin/activate; python -V; deactivate
mkdir r; cd r; git init -q .; git config user.email a@b; git config user.name n
printf '#!/bin/sh\nset -e\nif git diff --cached | grep -q FORBIDDEN; then echo no; exit 1; fi\nrm -rf build/ "$TMPDIR/x"\n' > .git/hooks/pre-commit; chmod +x .git/hooks/pre-commit
echo a > f; git add f; GIT_EDITOR=true git commit -qm one; git log --oneline | cat
git checkout -qb b; echo b >> f; EDITOR=true git commit -qam two; GIT_SEQUENCE_EDITOR=true git rebase -q -i HEAD~1; git checkout -q -; git merge -q b
cd ..; mkdir n; cd n
printf '{"name":"x","version":"1.0.0","scripts":{"test":"node t.js","build":"sh build.sh","clean":"rm -rf dist node_modules/.cache"}}' > package.json
echo 'const fs=require("fs");const cp=require("child_process");cp.execSync("ls",{stdio:"ignore"});fs.rmSync("dist",{recursive:true,force:true});console.log("ok")' > t.js
printf 'set -eu\nrm -rf dist\nmkdir -p dist\ncp t.js dist/\nfind dist -name "*.map" -delete\n' > build.sh
npm --offline test; npm --offline run build; npm --offline run clean
cd ..
mkdir c; cd c
cat > configure <<'E'
#!/bin/sh
PATH_SEPARATOR=:
as_nl='
'
for ac_arg in "$@"; do case $ac_arg in --prefix=*) prefix=${ac_arg#*=};; esac; done
test -n "$prefix" || prefix=/usr/local
rm -f conftest* confdefs.h
trap 'rm -rf conftest* && exit' 0
echo 'int main(void){return 0;}' > conftest.c
${CC-cc} -o conftest conftest.c && ./conftest && echo works
cat > Makefile <<M
all: p
p: p.c
	cc -o p p.c
install: all
	mkdir -p \$(DESTDIR)$prefix/bin && cp p \$(DESTDIR)$prefix/bin/p
uninstall:
	rm -f \$(DESTDIR)$prefix/bin/p
clean:
	rm -rf p *.o
M
E
chmod +x configure; ./configure --prefix=$PWD/out; echo 'int main(void){return 0;}' > p.c; make -s; make -s install; make -s clean
cp /usr/share/gettext/config.rpath . ; sh config.rpath x86_64-linux >/dev/null; echo $?
cp /bin/echo myecho; ./myecho copied; cp /usr/bin/env myenv; ./myenv FOO=1 true; cp /bin/bash mybash; ./mybash -c 'echo hi; [[ -f p.c ]] && wc -c < p.c'
perl -e 'unlink "zzz"; print "perl\n"'; awk 'BEGIN{print "awk"}'; sed -n 1p p.c
xargs -n1 echo < p.c; find . -name '*.o' -delete; tar cf - . | tar tf - >/dev/null; make -C . -n clean
echo done
