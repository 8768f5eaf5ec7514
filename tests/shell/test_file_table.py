"""Which words of a command are files, and what its program does to them: the table, program by program."""

from __future__ import annotations

import shlex

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.policy.request import UNKNOWN
from agent.shell.file_table import FORMS, files_of
from agent.shell.file_uses import How, Used
from agent.shell.file_ways import WAYS

CASES = """
cat a -n b | read a, read b
head -n 5 -- -a | read -a
tail -5 a | read a
sort -k 2 a -o b | read a, write b
uniq a b | read a, write b
xxd -l 4 a b | read a, write b
grep -n x a b | read a, read b
grep -e x -f p a | read a, read p
grep -s x a |
rg -n x a | read a
sed s/x/y/ a | read a
sed -n -e p a | read a
sed -i s/x/y/ a b | place a, place b
sed -i.bak -e s/x/y/ a | place a
sed --in-place=.bak -f s a | place a, read s
awk -F : {} a | read a
jq -r .x a | read a
jq -n 1 a |
base64 -d a | read a
sha256sum a | read a
diff -u a b | read a, read b
iconv -f x -t y a -o b | read a, write b
tee -a a b | write a, write b
truncate -s 0 a | write a
truncate -c -s 0 a | change a
touch -d now a | write a
touch -c a | change a
touch -r a b | write b, read a
rm -rf a b | remove a, remove b
rm --recursive --force -- -a | remove -a
rmdir -p a | remove a
unlink a | remove a
shred -un 3 a | write a
mkdir -p -m 700 a b | make a, make b
mkfifo a | place a
mknod a p | place a
link a b | place b
chmod +x a b | write a, write b
chmod -R u+w a | write a
chmod -x a | write a
chmod --reference=a b | write b, read a
chown -R me:me a | write a
chown -h me a | place a
setfacl -m u:me:rw a | write a
chattr +i a | write a
gzip -9 a | remove a
gzip -dk a | read a
xz -T 2 a | remove a
zip -r a b c | write a, read b, read c
split -b 3 a b | read a, write b
patch a b | place a, read b
patch -p1 -i a | read a
patch --dry-run a |
cp a b | write b[a], read a
cp -r a/ b c/. d | write d[a b ], read a/, read b, read c/.
cp -f a b | place b[a], read a
cp -t d a b | write d/a, write d/b, read a, read b
cp -T a b | write b, read a
cp a |
mv a b | place b[a], remove a
mv -t d a | place d/a, remove a
ln -s a b | place b[a]
ln -sfn a b | place b[a]!
ln -s ../a | place a
install -m 755 a b | place b[a], read a
install -d a b | make a, make b
rsync -a a/ b | place b[], read a/
rsync -a a b | place b[a], read a
rsync -a host:a b | place b[a]
rsync -a a host:b | read a
rsync -an a b |
scp host:a b | write b[a]
scp a host:b | read a
rsync host:a |
dd if=a of=b bs=1 | read a, write b
tar -xf a | read a, write .
tar xzf a -C d | read a, write d
tar -xOf a | read a
tar czf a b c | write a, read b, read c
tar -C d -cf a b | write a
tar -tf a | read a
tar --extract --file=a --directory d | read a, write d
unzip -o a -d d | read a, write d
unzip -l a | read a
find a b -name x -delete | write a, write b
find -delete | write .
find a -name x |
find a -fprint b | write b
git config -f a k v | write a
git config -f a k | read a
git config --file a --unset k | write a
git config --get -f a k | read a
git config set --file a k v | write a
git config k v |
git clone --depth 1 url d | write d
git clone url |
git init d | write d
git commit -m f |
curl -sSLo a url | write a
curl --output a --unknown url | write a
curl --output-dir d -o a url | write d/a
curl -T a -d @b -F n=@c;type=x -c d url | read b, read c, read a, write d
curl -O url |
wget -qO a url | write a
wget -P d url | write d
wget --spider -O a url |
openssl enc -in a -out b | read a, write b
ssh-keygen -t rsa -f a | write a
ssh-keygen -y -f a | read a
gpg -o a -d b | write a
gcc -O2 -o a b.c | write a
perl -pi -e s/x/y/ a | place a
perl -ne print a | read a
perl -e print a |
perl a.pl b |
. ./a b | read ./a
. a |
ls a |
echo a |
"""
ROWS = [tuple(part.strip() for part in line.rpartition("|")[::2]) for line in CASES.strip().splitlines()]


def _shown(used: Used) -> str:
    inside = f"[{' '.join(used.inside)}]" if used.inside else ""
    return f"{used.how} {used.word}{inside}{'' if used.through else '!'}"


def _files(text: str) -> list[Used]:
    argv = shlex.split(text)
    return list(files_of(argv[0], argv, ()))


@pytest.mark.parametrize(("text", "files"), ROWS, ids=[text for text, _ in ROWS])
def test_the_words_that_are_files(text: str, files: str) -> None:
    assert ", ".join(map(_shown, _files(text))) == files


def test_every_program_has_a_row_but_those_that_read_all_of_their_words_or_share_a_form() -> None:
    ways = {**FORMS, **WAYS}
    shown = [ways[text.split()[0]] for text, _ in ROWS if text.split()[0] in ways]
    without = [name for name, way in ways.items() if way not in shown]
    assert [name for name in without if name not in FORMS or FORMS[name].each is not How.READ] == []


STRICT = sorted(name for name, form in FORMS.items() if not form.loose)
WORDS = st.lists(st.text(alphabet=f"-abf=/.:@~{UNKNOWN}", max_size=6), max_size=6)


@given(st.sampled_from(STRICT), st.integers(0, 2))
def test_an_option_that_is_not_listed_leaves_all_words_alone(program: str, at: int) -> None:
    argv = [program, "a", "b"]
    argv.insert(1 if FORMS[program].first else 1 + at, "--no-such-option")
    assert list(files_of(program, argv, ())) == []


@given(st.sampled_from(sorted({*FORMS, *WAYS})), WORDS)
def test_what_is_named_stands_in_the_words(program: str, words: list[str]) -> None:
    for used in files_of(program, [program, *words], ()):
        parts = [part for part in used.word.split("/") if part not in ("", ".")]
        assert all(any(part in word for word in words) for part in parts)


@given(st.sampled_from(sorted({*FORMS, *WAYS})), WORDS, st.lists(st.integers(0, 7), max_size=3))
def test_words_that_are_still_to_be_expanded_are_never_said_to_be_known(
    program: str, words: list[str], globs: list[int]
) -> None:
    marked = [f"{word}*" for word in words]
    argv = [program, *(marked[at] if at + 1 in globs else word for at, word in enumerate(words))]
    for used in files_of(program, argv, globs):
        assert "*" not in used.word or UNKNOWN in used.word
        assert not any("*" in name for name in used.inside)
