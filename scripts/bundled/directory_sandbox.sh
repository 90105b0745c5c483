#!/bin/sh
# Sandboxes that are directories of this machine: a complete provider, and a template for your own.
#
# prepare and create print an id as the last line of their output. exec runs one shell script in a sandbox
# and ends with its status. sweep destroys all sandboxes whose names begin with that of a run, and prints
# their ids: what a create made that was ended before it printed an id. Exit status 75 means "too fast, try
# again later".
set -eu
here=${OFFLOAD_DIRECTORIES:-${TMPDIR:-/tmp}/offload-directories-$(id -u)}
(umask 077 && mkdir -p "$here/images" "$here/sandboxes")
fail() { echo "directory_sandbox: $1" >&2; exit "${2:-64}"; }
is_id() { case $1 in '' | *[!A-Za-z0-9-]*) fail "'$1' is no id" ;; esac; }
enter() { is_id "$1"; cd "$here/sandboxes/$1" 2>/dev/null || fail "there is no sandbox '$1'" 69; }
copy() { mkdir -p "$2" && cp -RPp "$1/." "$2"; }

command=${1:?prepare, create, exec, destroy, sweep or download}
shift
case $command in
prepare) # [--include-cwd] [DOCKERFILE] [--copy-dir=LOCAL:REMOTE]… [--sandbox-init-cmd=TEXT] [--context-dir=DIRECTORY]
    context=. init=
    image=$(mktemp -d "$here/images/im-XXXXXXXX")
    for word; do
        case $word in --context-dir=*) context=${word#*=} ;; --sandbox-init-cmd=*) init=${word#*=} ;; esac
    done
    copy "$context" "$image"
    for word; do
        pair=${word#--copy-dir=}
        [ "$pair" = "$word" ] || copy "${pair%%:*}" "$image/${pair#*:}"
    done
    [ -z "$init" ] || (cd "$image" && sh -c "$init") >&2
    echo "${image##*/}" ;;
create) # IMAGE [NAME]
    is_id "$1"
    [ -d "$here/images/$1" ] || fail "there is no image '$1'" 69
    if [ $# -gt 1 ]; then
        is_id "$2"
        box=$here/sandboxes/$2
        mkdir "$box"
    else
        box=$(mktemp -d "$here/sandboxes/sb-XXXXXXXX")
    fi
    trap 'rm -rf "$box"; exit 143' TERM INT HUP
    copy "$here/images/$1" "$box"
    echo "${box##*/}" ;;
exec) # SANDBOX SCRIPT
    enter "$1"
    exec sh -c "$2" ;;
destroy) # SANDBOX
    is_id "$1"
    rm -rf "$here/sandboxes/$1" ;;
sweep) # RUN
    is_id "$1"
    for box in "$here/sandboxes/$1"-*; do
        [ ! -d "$box" ] || { rm -rf "$box" && echo "${box##*/}"; }
    done ;;
download) # SANDBOX REMOTE:LOCAL…
    enter "$1"
    shift
    for pair; do
        [ ! -f "${pair%%:*}" ] || cp "${pair%%:*}" "${pair#*:}"
    done ;;
*) fail "unknown command '$command'" ;;
esac
