"""Ordinary work of a developer: nothing in it is unverifiable, and nothing of it is taken for what it is not."""

from __future__ import annotations

import pytest

from agent.shell.analyse import analyse_text
from tests.shell.given import CWD, HOME, answer

ORDINARY = """
ls -la
cat README.md | head -40
grep -rn 'def main' src --include='*.py'
grep -n "rm -rf /" notes.md
rg -n "TODO|FIXME" -g '*.py' src
rg --files -g '!node_modules' | head
find . -type f -name '*.py' -not -path './.venv/*'
find src -name '*.ts' -exec wc -l {} +
find . -name '*.orig' -delete
find . -newer Makefile -print
find . -type f -print0 | xargs -0 grep -l TODO
fd -e py test
fd -e py -x wc -l
sed -n '1,80p' src/main.py
sed -i 's/foo/bar/g' src/main.py
sed -i.bak -e '/^#/d' -e 's|/usr/local|/opt|' config.mk
sed -E 's/([0-9]+)e/\\1/' data.txt
sed 's/error/warning/' log.txt
sed '/^$/d;s/ e / /' file
awk '{print $1}' file.txt
awk -F: '$3 >= 1000 {print $1}' /etc/passwd
awk 'NR==FNR{a[$1];next} $1 in a' a.txt b.txt
awk '{s+=$1} END {printf "%.2f\\n", s/NR}' data
sort -u -k2,2 names.txt
sort -rn counts.txt | head -5
split -l 1000 big.csv part_
tar czf dist.tar.gz dist
tar -xzf archive.tar.gz -C build --strip-components=1
tar -tf archive.tar
tar --exclude='.git' -cJf src.tar.xz src
zip -r out.zip dist -x '*.map'
unzip -o out.zip -d build
gzip -k file
curl -fsSL https://example.test/data.json -o data.json
curl -s -X POST -H 'Content-Type: application/json' -d '{"a": 1}' http://127.0.0.1:8080/api
curl -I https://example.test
curl -s http://127.0.0.1:8080/health | jq .status
wget -q https://example.test/file.tgz
wget -qO- https://example.test/data | jq .
jq '.scripts | keys' package.json
yq '.jobs.build' .github/workflows/ci.yml
git status
git status -sb
git diff --stat
git diff HEAD~1 -- src
git log --oneline -20
git log --grep='--exec' --author=me
git log -p --follow -- src/main.py
git log --format='%h %s' -S'rm -rf /'
git add -A
git commit -m 'fix: quote "rm -rf /" in docs'
git commit -am "run: sh -c 'x'"
git commit --amend --no-edit
git commit -F - <<'EOT'\\nsubject\\n\\nsh -c "rm -rf /"\\nEOT
git checkout -b feature/x
git switch main
git stash push -m wip
git stash pop
git pull --rebase origin main
git fetch --all --prune
git push -u origin feature/x
git rebase main
git rebase -i HEAD~3
GIT_EDITOR=true git rebase --continue
GIT_SEQUENCE_EDITOR=: git rebase -i --autosquash main
git -c core.pager=cat log -3
git --no-pager diff
git -c user.name=x -c user.email=x@example.test commit --allow-empty -m x
git config user.name 'A Person'
git config --global core.editor vim
git config --get remote.origin.url
git config core.hooksPath .githooks
git config alias.st status
git clone --depth 1 https://example.test/repo.git
git clone git@example.test:group/repo.git repo
git submodule update --init --recursive
git submodule foreach git status
git bisect start HEAD v1.0
git bisect run make test
git worktree add ../wt main
git blame -L 1,20 src/main.py
git grep -n 'os.system'
git tag -a v1 -m 'v1'
git show HEAD:README.md
git cherry-pick abc123
git rev-parse --show-toplevel
git ls-files | xargs wc -l
git remote -v
git archive --format=tar HEAD -o out.tar
git format-patch -1
git apply fix.patch
git reflog
git describe --tags
git shortlog -sn
npm ci
npm install --save-dev typescript
npm run build
npm run test -- --watch=false
npm test
npm exec -- tsc --noEmit
npx tsc --noEmit
npx --yes prettier --check .
npx jest -t 'rm -rf'
yarn install --frozen-lockfile
yarn build
pnpm install
pnpm exec eslint src
pnpm dlx create-app my-app
bun install
node index.js
node -e 'console.log(1 + 1)'
node -p "require('./package.json').version"
node --test
deno fmt
python3 -m venv .venv
python3 -m pip install -e '.[dev]'
python3 -m pytest -q tests
python3 -m http.server 8000
python3 -c 'print("hello")'
python3 -c 'import json,sys; print(json.load(sys.stdin)["a"])' < data.json
python3 -c "import sys; print(sys.version)"
python3 manage.py migrate
python3 setup.py sdist
pip install -r requirements.txt
pip list --outdated
pipx run cowsay hi
uv sync
uv run pytest -x
uv pip install requests
poetry install
poetry run python -m pytest
pytest -k 'not slow' -x
tox -e py312
ruff check --fix .
mypy --strict src
black src
pre-commit run --all-files
coverage run -m pytest
make
make -j4 all
make -C build install DESTDIR=/tmp/out
make test VERBOSE=1
cmake -S . -B build -DCMAKE_BUILD_TYPE=Release
cmake --build build -j 4
cmake -E make_directory out
ctest --output-on-failure
ninja -C build
meson setup build
./configure --prefix=/tmp/out
gcc -O2 -Wall -o main main.c
g++ -std=c++20 -c a.cc -o a.o
cargo build --release
cargo test --workspace
cargo clippy -- -D warnings
cargo run -- --help
rustc --version
go build ./...
go test -race ./...
go vet ./...
go mod tidy
mvn -q -DskipTests package
./gradlew test --info
bundle install
bundle exec rspec
rake spec
ruby -e 'puts 1'
gem list
perl -pe 's/foo/bar/' in.txt
perl -ne 'print if /x/' in.txt
php -r 'echo PHP_VERSION;'
composer install
docker build -t app:dev .
docker ps -a
docker run --rm -v "$PWD":/src -w /src node:20 npm test
docker run -it --rm -p 8080:80 --name web nginx
docker exec -it web ls /srv
docker logs -f web
docker compose up -d
docker compose exec db psql -U app -c 'select 1'
docker compose run --rm web pytest
kubectl get pods -A
kubectl logs deploy/web -f
kubectl exec -it web-0 -- ls
kubectl apply -f k8s.yaml
terraform plan
ssh build.example.test uptime
ssh -p 2222 -i key -o StrictHostKeyChecking=no user@host.test 'ls -la'
scp -P 2222 file user@host.test:/tmp/
rsync -avz --delete -e 'ssh -p 2222' dist/ user@host.test:/srv/
rsync -a --exclude node_modules src/ dst/
psql -h localhost -U app -c 'select count(*) from users'
psql app < dump.sql
pg_dump app > dump.sql
pg_dump app | psql other
mysql -u root app < schema.sql
mysql -e 'show tables' app
sqlite3 app.db 'select * from t limit 5'
sqlite3 app.db .schema
redis-cli ping
vim +10 src/main.py
vim -d a b
less +F app.log
man git-rebase
man -k socket
watch -n 2 'ls -la dist'
time make test
timeout 60 npm test
nohup ./server > server.log 2>&1 &
env NODE_ENV=test npm test
NODE_ENV=production node build.js
nice -n 10 make
xargs -n1 basename < files.txt
ls *.py | xargs -I{} cp {} {}.bak
parallel -j4 gzip ::: a b c
strace -f -e trace=openat ls
gdb -batch -ex bt ./app core
gdb --args ./app --flag
valgrind --leak-check=full ./app
tmux new-session -d -s dev 'npm run dev'
tmux ls
screen -ls
tee out.log < in.log
diff -u a b
patch -p1 < fix.patch
chmod +x scripts/build.sh
bash scripts/build.sh --fast
sh -c 'cd sub && make'
source .venv/bin/activate
. ./env.sh
openssl rand -hex 32
openssl req -x509 -newkey rsa:2048 -nodes -keyout k.pem -out c.pem -subj /CN=x
ssh-keygen -t ed25519 -f key -N ''
nc -zv localhost 5432
dig example.test
ansible-playbook -i hosts site.yml
ffmpeg -i in.mp4 out.webm
convert in.png -resize 50% out.png
pandoc README.md -o README.html
hyperfine 'npm test'
entr -r make test < files
jq -n '{cmd: "rm -rf /"}'
echo 'rm -rf /' >> notes.md
printf '%s\\n' "sh -c x"
export PATH="$HOME/bin:$PATH"
crontab -l
journalctl -u web -n 50
systemctl status web
apt-get install -y build-essential
dpkg -l | grep ssl
""".strip().splitlines()


def spelled(line: str) -> str:
    return line.replace("\\n", "\n") if "<<" in line else line.replace("\\\\", "\\")


@pytest.mark.parametrize("line", ORDINARY)
def test_ordinary_work_is_understood_and_allowed(line: str) -> None:
    analysis = analyse_text(spelled(line), cwd=CWD, home=HOME)
    assert analysis.unverifiable is None
    assert not {"<reverse-shell>", "<fork-bomb>"} & {command.program for command in analysis.commands}
    assert answer(spelled(line))[0] == "allow", answer(spelled(line))


def test_there_are_enough_of_them() -> None:
    assert len(set(ORDINARY)) > 200
