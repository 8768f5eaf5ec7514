"""Interpreters that `agent.shell.interpreters` does not know: where the code is that they run. More rows of
`agent.shell.carriers_table`.

Rules: as there; the language of the rows is in `agent.shell.carriers`, those of the code in `agent.shell.code`.
"""

LANGUAGES = r"""
expect:
    -c    code:tcl
    first    script:tcl
    alone    code:tcl
tclsh tclsh8.6 wish jimsh:
    first    script:tcl
    alone    code:tcl
R Rscript littler:
    first -f    script:r
    -e    code:r
    alone    code:r
octave octave-cli:
    first    script:other
    --eval --execute    code:other
    alone    code:other
julia:
    -e -E --eval --print    code:julia
    first -L    script:julia
    alone    code:julia
elixir iex:
    -e --eval    code:other
erl:
    -eval    code:other
ghc ghci runghc:
    -e    says:ghci
raku perl6:
    -e    code:perl
crystal:
    operand    code:ruby    (?=.*[(`;])
groovy groovysh slsh scala kotlin jrunscript bb clj clojure nim amm:
    first    script:other
    -e    code:other
    alone    code:other
jjs jshell:
    first    script:other
    alone    code:other
ocaml sbcl clisp ecl guile racket gosh chicken csi gsi swipl scheme newlisp:
    first --script --load    script:lisp
    -e -c -x -g --eval --evaluate    code:lisp
    alone    code:lisp
osascript:
    -e    code:applescript
    alone    code:applescript
pwsh powershell pwsh.exe powershell.exe:
    -c -Command -command --command    rest-text
    -enc -EncodedCommand -encodedcommand -ec    loads
    alone    text
cmd.exe:
    operand    text
"""
