#!/bin/sh
# Sandboxes that are folders of this machine: a complete provider, and a template for one's own.
#
# prepare and create print an id as the last line of their output. exec runs one shell text in a sandbox
# and ends with its status. Exit status 75 means "too fast, try again later". A create that gets TERM has
# five seconds to remove what it made, or to print its id.
set -eu
umask 077
here=${OFFLOAD_DIRECTORIES:-${TMPDIR:-/tmp}/offload-directories-$(id -u)}
fail() { echo "directory_sandbox: $1" >&2; exit "${2:-64}"; }
folder() { # KIND ID: the folder of an image or a sandbox
    case $2 in '' | *[!a-z0-9-]*) fail "'$2' is no id" ;; esac
    printf %s "$here/$1/$2"
}
copy() { mkdir -p "$2" && (cd "$1" && tar cf - --exclude="./${here##*/}" .) | (cd "$2" && tar xpf -); }
new() { mkdir -p "$here/$1s" && made=$(mktemp -d "$here/$1s/$2XXXXXX") && mv "$made" "$made.new" \
    && id=$2$(printf %s "${made##*/$2}" | od -An -tx1 | tr -d ' \n') && mv "$made.new" "$here/$1s/$id"; }

command=${1:?prepare, create, exec, destroy or download}
shift
case $command in
prepare) # [--include-cwd] [DOCKERFILE] [--copy-dir=LOCAL:REMOTE]… [--sandbox-init-cmd=TEXT] [--context-dir=FOLDER]
    context=. init=
    new image im-
    image=$here/images/$id
    for word; do
        case $word in --context-dir=*) context=${word#*=} ;; --sandbox-init-cmd=*) init=${word#*=} ;; esac
    done
    copy "$context" "$image"
    for word; do
        pair=${word#--copy-dir=}
        [ "$pair" = "$word" ] || copy "${pair%%:*}" "$image/${pair#*:}"
    done
    [ -z "$init" ] || (cd "$image" && sh -c "$init") >&2
    echo "$id" ;;
create) # IMAGE
    image=$(folder images "$1")
    [ -d "$image" ] || fail "there is no image '$1'" 69
    new sandbox sb-
    trap 'rm -rf "$here/sandboxes/$id"; exit 143' TERM INT HUP
    copy "$image" "$here/sandboxes/$id"
    echo "$id" ;;
exec) # SANDBOX TEXT
    cd "$(folder sandboxes "$1")" || fail "there is no sandbox '$1'" 69
    exec sh -c "$2" ;;
destroy) # SANDBOX
    rm -rf "$(folder sandboxes "$1")" ;;
download) # SANDBOX REMOTE:LOCAL…
    cd "$(folder sandboxes "$1")" || fail "there is no sandbox '$1'" 69
    shift
    for pair; do
        [ ! -f "${pair%%:*}" ] || cp "${pair%%:*}" "${pair#*:}"
    done ;;
*) fail "unknown command '$command'" ;;
esac
