#!/bin/sh
# Sandboxes that are folders of this machine: a complete provider, and a template for one's own.
#
# prepare and create print an id as the last line of their output. exec runs one shell text in a sandbox
# and ends with its status. Exit status 75 means "too fast, try again later". A create that gets TERM has
# five seconds to remove what it made, or to print its id.
set -eu
here=${OFFLOAD_DIRECTORIES:-${TMPDIR:-/tmp}/offload-directories-$(id -u)}
(umask 077 && mkdir -p "$here/images" "$here/sandboxes")
fail() { echo "directory_sandbox: $1" >&2; exit "${2:-64}"; }
is_id() { case $1 in '' | *[!A-Za-z0-9-]*) fail "'$1' is no id" ;; esac; }
enter() { is_id "$1"; cd "$here/sandboxes/$1" 2>/dev/null || fail "there is no sandbox '$1'" 69; }
copy() { mkdir -p "$2" && cp -RPp "$1/." "$2"; }

command=${1:?prepare, create, exec, destroy or download}
shift
case $command in
prepare) # [--include-cwd] [DOCKERFILE] [--copy-dir=LOCAL:REMOTE]… [--sandbox-init-cmd=TEXT] [--context-dir=FOLDER]
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
create) # IMAGE
    is_id "$1"
    [ -d "$here/images/$1" ] || fail "there is no image '$1'" 69
    box=$(mktemp -d "$here/sandboxes/sb-XXXXXXXX")
    trap 'rm -rf "$box"; exit 143' TERM INT HUP
    copy "$here/images/$1" "$box"
    echo "${box##*/}" ;;
exec) # SANDBOX TEXT
    enter "$1"
    exec sh -c "$2" ;;
destroy) # SANDBOX
    is_id "$1"
    rm -rf "$here/sandboxes/$1" ;;
download) # SANDBOX REMOTE:LOCAL…
    enter "$1"
    shift
    for pair; do
        [ ! -f "${pair%%:*}" ] || cp "${pair%%:*}" "${pair#*:}"
    done ;;
*) fail "unknown command '$command'" ;;
esac
