"""The calls of inline code that run, delete, read or write something: their names, by what they do.

Rules: a name is here if it means this in at least one of the languages and nothing harmless that is common in another
(those are bound to an owner: ``os.remove``, not ``list.remove``). Sources: the languages' manuals for os, subprocess,
shutil, pathlib (Python), child_process, fs (Node), Kernel, IO, Open3, FileUtils (Ruby), exec and filesystem functions
(PHP), perlfunc(1), the Lua manual 6.8 and 6.9, R's base package, Julia's and Elixir's system modules.
"""

from __future__ import annotations

from agent.expressions import expression


def _names(text: str) -> frozenset[str]:
    return frozenset(text.split())


SHELL_CALLS = _names(
    "system popen popen2 popen3 popen4 getoutput getstatusoutput execSync shell_exec passthru proc_open"
    " create_subprocess_shell capture2 capture2e capture3 capture shell unix shell_cmd"
)
"""Their first argument is read by a shell (or a list of words is run)."""

ARGV_CALLS = _names(
    "run call check_call check_output Popen spawn spawnSync execFile execFileSync create_subprocess_exec pcntl_exec"
    " posix_spawn posix_spawnp execv execve execvp execvpe execl execle execlp execlpe spawnl spawnle spawnlp spawnlpe"
    " spawnv spawnve spawnvp spawnvpe ProcessBuilder system2 fork_exec Command"
)
"""Their arguments are a program and its words."""

FIRST_IS_MODE = _names("spawnl spawnle spawnlp spawnlpe spawnv spawnve spawnvp spawnvpe")
FIRST_IS_FILE = FIRST_IS_MODE | _names(
    "execv execve execvp execvpe execl execle execlp execlpe posix_spawn posix_spawnp"
)

TREE_CALLS = _names(
    "rmtree rm_rf rm_r rm_f remove_entry remove_entry_secure remove_dir remove_tree removedirs rmSync rmdirSync rimraf"
    " rimrafSync removeSync emptyDirSync emptyDir deltree rmdir_recursive"
)
FILE_CALLS = _names("unlink unlinkSync rmdir")
OWNED_FILE_CALLS = _names("remove rm delete del_dir_r")
OWNERS = _names("os fs fsPromises promises File Dir FileUtils file Deno IO pathlib shutil FileSystem Files")
"""Who means files by `remove`, `rm`, `delete`, `copy`, `move`."""

MOVE_CALLS = _names("rename renameSync replace move mv mv_f moveSync")
COPY_CALLS = _names("copy copy2 copyfile copytree copyFile copyFileSync cp cp_r cpSync copySync copy_file")

EVAL_CALLS = _names("eval exec instance_eval runInThisContext runInNewContext loadstring load doit evalc")

READ_CALLS = _names(
    "readFileSync readFile createReadStream openSync file_get_contents readfile read_file readLines readRDS"
    " readTextFile readTextFileSync slurp read_text read_bytes read_lines"
)
WRITE_CALLS = _names(
    "writeFileSync writeFile appendFileSync appendFile createWriteStream file_put_contents write_text write_bytes"
    " writeTextFile writeTextFileSync truncateSync outputFileSync writeLines"
)
OPEN_CALLS = _names("open fopen")
OWNED_READ_CALLS = _names("read readlines foreach binread new open lines each_line")
OWNED_WRITE_CALLS = _names("write binwrite")
FILE_OWNERS = _names("File IO io Pathname Bun Deno codecs")

LISTS = _names("c list array Array List Seq vector List.of Arrays.asList")
"""``c("-rf", "/")`` is a list."""

PREFIXED = _names("subprocess os commands pty child_process cp Open3 Kernel Process IO asyncio sh System Deno Bun")

NODE_RUNNERS = expression(r"child_process|shelljs|execa|^zx$|\bBun\b|\bDeno\b|cross-spawn|process\.binding|mainModule")
"""Without one of these a JavaScript text has nothing that runs a program: ``exec`` is a regular expression's."""

CONNECTIONS = _names(
    "socket Socket Sockets TCPSocket UDPSocket TCPServer fsockopen pfsockopen socket_create stream_socket_client"
    " create_connection createConnection inet_aton PF_INET AF_INET INET TCPClient open_connection SOCK_STREAM sockopen"
)
CONNECTION_CALLS = _names("Deno.connect Deno.connectTls Deno.listen Bun.connect Bun.listen net.Dial net.Listen")
CONNECTION_TEXTS = expression(r"/inet[46]?/(?:tcp|udp)/|^(?:node:)?(?:net|tls|dgram|socket)$|^(?:tcp|udp|ssl)://")
DUPLICATES = _names("dup2 posix_dup2")
PATH_LIKE = expression(r"(?=.*[./~])[^\s\0<>|;*?{}()\[\]]{1,256}")
"""A literal that may be the name of a file."""
