# /// script
# requires-python = ">=3.10"
# dependencies = ["modal>=1.5.4,<2"]
# ///
"""Sandboxes of Modal: turns requests into calls of Modal's SDK. The caller decides what to do when one fails.

`driver` reads requests as JSON lines from its standard input and answers them on its standard output, all
at once, for a whole run. The other subcommands do one thing each, for the commands of a provider of shell
commands.
"""

import argparse
import asyncio
import json
import math
import os
import re
import shlex
import sys
import tarfile
import tempfile
import threading
from pathlib import Path

import modal
import modal.exception

TAG = "offload-run"
# What a sandbox runs between commands; it lives for a day at most.
STAY = ("sleep", "86400")
# How many links one layer makes.
LINKS = 100
# How many requests of ours the server gets at the same time.
AT_ONCE = 20
# How often the destruction of a sandbox is tried when nobody else will try again.
ROUNDS = 3
# Seconds until a server counts as unreachable.
REACH = 20
# Seconds to wait at the end for creates at most, and as many for destroys.
PATIENCE = 60
# Why a create or an exec should be tried again later (EX_TEMPFAIL of sysexits.h).
TEMPFAIL = 75
THROTTLED = ("ResourceExhaustedError",)
COPY = 'if [ -d "$0" ]; then printf d; exec tar -C "$0" -cf - .; elif [ -f "$0" ]; then printf f; exec cat "$0"; fi; exit 0'


# Images


def instructions(text):
    """The instructions of a Dockerfile, each as one string with its lines; None where they are unclear."""
    found, current = [], []
    for line in text.splitlines():
        bare = line.strip()
        if not found and not current and re.match(r"#\s*escape\s*=", bare, re.IGNORECASE):
            return None
        if not bare or bare.startswith("#"):
            continue
        current.append(line)
        if not bare.endswith("\\"):
            found.append(one_line(current))
            current = []
    return found + [one_line(current)] if current else found


def one_line(lines):
    """An instruction with its continued lines; COPY and ADD as one line, where the SDK looks for their sources."""
    if lines[0].split(None, 1)[0].upper() not in ("COPY", "ADD"):
        return "\n".join(lines)
    return " ".join(line.strip().removesuffix("\\").strip() for line in lines)


def layers(text):
    """The Dockerfile `text` in pieces, the first with FROM, each of the others with one step that has its own layer in
    the cache; None where it has to be built as a whole."""
    steps = instructions(text)
    words = [step.split(None, 1)[0].upper() for step in steps or []]
    # A heredoc has lines that are no instructions; a mount or a stage needs other parts of the file.
    whole = re.search(r"<<-?\s*['\"]?[A-Za-z_]|--from=|--mount=", text)
    if whole or words.count("FROM") != 1 or words[0] != "FROM" or "$" in steps[0] or "ONBUILD" in words:
        return None
    pieces, repeated, current = [], [], []
    for word, step in zip(words, steps):
        is_layer = word in ("RUN", "COPY", "ADD")
        if is_layer and not pieces:
            pieces.append(current)
            current = list(repeated)
        current.append(step)
        if is_layer:
            pieces.append(current)
            current = list(repeated)
        elif word in ("ARG", "SHELL"):
            # These end with their Dockerfile, and each piece is one.
            repeated.append(step)
    return pieces if current == repeated else [*pieces, current]


def run_line(text):
    """A RUN instruction for a shell script."""
    return f"RUN {text}" if "\n" not in text else "RUN " + json.dumps(["/bin/sh", "-c", text])


def same_pattern(line):
    """A line of an ignore file; the SDK does not see that `!/a/` and `!a` are the same."""
    return "!" + line[1:].strip().strip("/") if line.startswith("!") else line


def ignored(context, dockerfile, more=()):
    """Matches files that do not go into the image."""
    places = [Path(context) / ".dockerignore"]
    if dockerfile:
        places[:0] = [Path(f"{dockerfile}.dockerignore"), Path(dockerfile).parent / ".dockerignore"]
    patterns = [".git", *more]
    for place in places:
        if place.is_file():
            lines = (line.strip() for line in place.read_text().splitlines())
            patterns += [same_pattern(line) for line in lines if line and not line.startswith("#")]
            break
    return modal.FilePatternMatcher(*patterns)


def base_image(request, scratch):
    """The image that files and commands are added to."""
    force, dockerfile = request.get("force", False), request.get("dockerfile")
    context = request.get("context") or os.getcwd()
    if not dockerfile:
        version = f"{sys.version_info.major}.{sys.version_info.minor}"
        base = modal.Image.from_registry(f"python:{version}-slim", force_build=force)
        return base.dockerfile_commands(["RUN python -m pip install pytest"], force_build=force)
    options = {
        "context_dir": context,
        "ignore": ignored(context, dockerfile, request.get("ignore", ())),
        "force_build": force,
    }
    pieces = layers(Path(dockerfile).read_text())
    if pieces is None:
        return modal.Image.from_dockerfile(dockerfile, **options)
    head = Path(scratch) / "Dockerfile"
    head.write_text("\n".join(pieces[0]) + "\n")
    image = modal.Image.from_dockerfile(head, **options)
    for piece in pieces[1:]:
        # The SDK looks for COPY line by line.
        image = image.dockerfile_commands("\n".join(piece).split("\n"), **options)
    return image


def with_links(image, context, root, matcher, force):
    """The image with the links of a directory, which the SDK follows or leaves out."""
    found = []
    for folder, folders, files in os.walk(context):
        places = [Path(folder, name).relative_to(context) for name in (*folders, *files)]
        found += [place for place in places if (context / place).is_symlink() and not matcher(place)]
        folders[:] = [name for name in folders if not matcher(Path(folder, name).relative_to(context))]
    made = []
    for place in sorted(found):
        target, link = shlex.quote(os.readlink(context / place)), shlex.quote(f"{root}/{place}")
        made.append(f"mkdir -p {shlex.quote(str(Path(root, place).parent))} && rm -rf {link} && ln -s {target} {link}")
    for start in range(0, len(made), LINKS):
        commands = [run_line(" && ".join(made[start : start + LINKS]))]
        image = image.dockerfile_commands(commands, force_build=force)
    return image


def new_image(request, scratch):
    """An image from a Dockerfile, directories of this machine and a command."""
    force, context = request.get("force", False), request.get("context") or os.getcwd()
    image = base_image(request, scratch)
    root = request.get("root") or "/app"
    if request.get("include_cwd"):
        matcher = ignored(context, request.get("dockerfile"), request.get("ignore", ()))
        image = image.add_local_dir(context, root, copy=True, ignore=matcher)
        image = with_links(image, Path(context), root, matcher, force)
    for pair in request.get("copy_dirs", ()):
        local, remote = pair.split(":", 1)
        add = image.add_local_dir if Path(local).is_dir() else image.add_local_file
        image = add(local, remote, copy=True)
    if request.get("init"):
        enter = f"cd {shlex.quote(root)} && " if request.get("include_cwd") or request.get("root") else ""
        image = image.dockerfile_commands([run_line(enter + request["init"])], force_build=force)
    return image


def patched_image(request):
    """An image with the difference of a working tree on top of it."""
    root, folder = shlex.quote(request.get("root") or "/app"), "/tmp/.offload-thin-diff"
    image = modal.Image.from_id(request["base"])
    commands = []
    if request.get("script"):
        image = image.add_local_file(request["script"], f"{folder}/thin-diff.sh", copy=True)
        commands.append(f"cd {root} && sh {folder}/thin-diff.sh")
    if request.get("patch"):
        image = image.add_local_file(request["patch"], f"{folder}/thin-diff.patch", copy=True)
        if not request.get("script"):
            commands.append(f"cd {root} && git apply --binary --allow-empty {folder}/thin-diff.patch")
    if request.get("then"):
        project = shlex.quote(request.get("project") or request.get("root") or "/app")
        known = f"export OFFLOAD_PATCH_FILE={folder}/thin-diff.patch; " if request.get("patch") else ""
        commands.append(f"{known}cd {project} && {request['then']}")
    return image.dockerfile_commands([run_line(command) for command in commands]) if commands else image


# Calls


async def several(calls):
    """Awaits all of these, some at a time, then raises the first error, if any."""
    room = asyncio.Semaphore(AT_ONCE)

    async def one(call):
        async with room:
            return await call

    results = await asyncio.gather(*(one(call) for call in calls), return_exceptions=True)
    for result in results:
        if isinstance(result, BaseException):
            raise result
    return results


class Modal:
    """The app and its sandboxes."""

    def __init__(self):
        self.app = None
        self.patience = PATIENCE
        self.images = {}
        self.sandboxes = {}

    async def hello(self, request):
        self.patience = min(request.get("patience") or PATIENCE, PATIENCE)
        lookup = modal.App.lookup.aio(request.get("app") or "offload", create_if_missing=True)
        try:
            self.app = await asyncio.wait_for(lookup, REACH)
        except asyncio.TimeoutError:
            # The SDK itself retries for a minute.
            raise modal.exception.ConnectionError(f"no answer within {REACH} s") from None
        return {"version": modal.__version__}

    async def prepare(self, request):
        with tempfile.TemporaryDirectory() as scratch, modal.enable_output():
            image = patched_image(request) if request.get("base") else new_image(request, scratch)
            await image.build.aio(self.app)
        return {"image": image.object_id}

    async def create(self, request):
        memory = request.get("memory_gb")
        image = self.images.setdefault(request["image"], modal.Image.from_id(request["image"]))
        sandbox = await modal.Sandbox.create.aio(
            *STAY,
            app=self.app,
            image=image,
            timeout=request["timeout"],
            idle_timeout=request["idle_timeout"],
            cpu=request.get("cpu"),
            memory=math.ceil(memory * 1024) if memory else None,
            env=request.get("env") or None,
            experimental_options=request.get("experimental_options") or None,
            tags=request["tags"],
        )
        self.sandboxes[sandbox.object_id] = sandbox
        return {"sandbox": sandbox.object_id}

    async def sandbox(self, identity):
        if identity not in self.sandboxes:
            self.sandboxes[identity] = await modal.Sandbox.from_id.aio(identity)
        return self.sandboxes[identity]

    async def exec(self, request, outputs):
        """Runs a command whose output goes to `outputs`, two binary files; gives its exit status."""
        sandbox = await self.sandbox(request["sandbox"])
        process = await sandbox.exec.aio(
            *request["command"], timeout=request.get("timeout"), env=request.get("env") or None, text=False
        )

        async def copy(stream, output):
            async for chunk in stream:
                output.write(chunk)
                output.flush()

        await asyncio.gather(copy(process.stdout, outputs[0]), copy(process.stderr, outputs[1]))
        return {"status": await process.wait.aio()}

    async def download(self, request):
        """Copies files and directories out of a sandbox; missing ones are left out."""
        await several(self.fetch(request, remote, local) for remote, local in request["pairs"])
        return {}

    async def fetch(self, request, remote, local):
        with tempfile.TemporaryFile(dir=request.get("scratch")) as content, open(os.devnull, "wb") as nowhere:
            command = ["sh", "-c", COPY, remote]
            ended = await self.exec({"sandbox": request["sandbox"], "command": command}, (content, nowhere))
            if ended["status"]:
                raise OSError(f"cannot read `{remote}` in the sandbox (exit status {ended['status']})")
            content.seek(0)
            kind = content.read(1)
            if kind == b"f":
                with open(local, "wb") as target:
                    while block := content.read(1 << 20):
                        target.write(block)
            elif kind == b"d":
                with tarfile.open(fileobj=content, mode="r|") as archive:
                    archive.extractall(local, filter="data")

    async def destroy(self, request):
        try:
            sandbox = await self.sandbox(request["sandbox"])
            await sandbox.terminate.aio()
        except (modal.exception.NotFoundError, modal.exception.ConflictError):
            # It ended by itself.
            pass
        self.sandboxes.pop(request["sandbox"], None)
        return {}

    async def sweep(self, request):
        found = [one async for one in modal.Sandbox.list.aio(app_id=self.app.app_id, tags=request["tags"])]
        await several(self.destroy({"sandbox": sandbox.object_id}) for sandbox in found)
        return {"sandboxes": [sandbox.object_id for sandbox in found]}


# The driver


class Driver:
    """Answers requests, each as soon as it is done."""

    def __init__(self, answers):
        self.modal = Modal()
        self.answers = answers
        self.creates = {}

    def answer(self, request, content):
        self.answers.write(json.dumps({"id": request["id"], **content}) + "\n")
        self.answers.flush()

    async def handle(self, request):
        try:
            if request["call"] == "exec":
                with open(request["stdout"], "wb") as stdout, open(request["stderr"], "wb") as stderr:
                    result = await self.modal.exec(request, (stdout, stderr))
            else:
                result = await getattr(self.modal, request["call"])(request)
            if request["call"] == "create" and self.creates.pop(request["id"], None):
                # It is no longer wanted.
                await self.modal.destroy(result)
                result = {"sandbox": None}
            self.answer(request, {"result": result})
        except Exception as error:
            self.answer(request, {"error": type(error).__name__, "message": str(error) or repr(error)})

    async def serve(self, requests):
        """Serves until there are no more requests, then destroys everything it made. True if something may be left."""
        tasks = set()
        while (request := await requests.get()) is not None:
            if request["call"] == "cancel":
                self.creates[request["request"]] = True
                continue
            task = asyncio.create_task(self.handle(request))
            if request["call"] == "create":
                self.creates.setdefault(request["id"], False)
                task.is_create = True
            tasks.add(task)
            task.add_done_callback(tasks.discard)
        creates = [task for task in tasks if hasattr(task, "is_create")]
        if creates:
            await asyncio.wait(creates, timeout=self.modal.patience)
        late = any(not task.done() for task in creates)
        try:
            return await asyncio.wait_for(self.destroy_all(), self.modal.patience) or late
        except asyncio.TimeoutError:
            return True

    async def destroy_all(self):
        """Destroys what is left, as nobody else will. True if something may be left."""
        for _ in range(ROUNDS):
            try:
                await several(self.modal.destroy({"sandbox": one}) for one in list(self.modal.sandboxes))
                return False
            except Exception as error:
                print(f"modal_sandbox: {type(error).__name__}: {error}", file=sys.stderr)
                await asyncio.sleep(1)
        return True


def read_lines(loop, requests):
    # An event loop cannot wait for every kind of file, so a thread reads.
    for line in sys.stdin.buffer:
        try:
            loop.call_soon_threadsafe(requests.put_nowait, json.loads(line))
        except ValueError:
            print(f"modal_sandbox: no request: {line[:200]!r}", file=sys.stderr)
    loop.call_soon_threadsafe(requests.put_nowait, None)


async def drive(answers):
    requests = asyncio.Queue()
    threading.Thread(target=read_lines, args=(asyncio.get_running_loop(), requests), daemon=True).start()
    return int(await Driver(answers).serve(requests))


# The command line


async def once(arguments):
    """One call of the command line; gives the exit status."""
    calls = Modal()
    await calls.hello({"app": arguments.app})
    if arguments.call == "exec":
        command = ["sh", "-c", arguments.command]
        streams = (sys.stdout.buffer, sys.stderr.buffer)
        result = await calls.exec({"sandbox": arguments.sandbox, "command": command}, streams)
        return result["status"]
    requests = {"prepare": prepare_request, "create": create_request, "download": download_request}
    request = requests.get(arguments.call, lambda _: {"sandbox": arguments.sandbox})(arguments)
    result = await getattr(calls, arguments.call)(request)
    if arguments.call in ("prepare", "create"):
        print(result.get("image") or result["sandbox"], file=arguments.answers, flush=True)
    return 0


def prepare_request(arguments):
    return {
        "dockerfile": arguments.dockerfile,
        "include_cwd": arguments.include_cwd,
        "context": arguments.context_dir,
        "copy_dirs": arguments.copy_dir,
        "init": arguments.sandbox_init_cmd,
        "force": arguments.force,
        "base": arguments.from_base_image,
        "script": arguments.patch_script,
        "patch": arguments.patch_file,
        "then": arguments.post_patch_cmd,
        "root": arguments.sandbox_project_root,
    }


def create_request(arguments):
    run = os.environ.get("OFFLOAD_RUN_ID")
    return {
        "image": arguments.image,
        "cpu": arguments.cpu,
        "memory_gb": arguments.memory_gb,
        "env": dict(pair.split("=", 1) for pair in arguments.env),
        "experimental_options": json.loads(arguments.experimental_options),
        "timeout": arguments.timeout,
        "idle_timeout": arguments.idle_timeout,
        "tags": {TAG: run} if run else {},
    }


def download_request(arguments):
    return {"sandbox": arguments.sandbox, "pairs": [pair.split(":", 1) for pair in arguments.paths]}


def parser():
    result = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    result.add_argument("--app", default="offload", help="the app of Modal that sandboxes belong to")
    calls = result.add_subparsers(dest="call", required=True)
    prepare = calls.add_parser("prepare", help="make an image and print its id")
    prepare.add_argument("dockerfile", nargs="?")
    prepare.add_argument("--include-cwd", action="store_true", help="copy the context to the root")
    prepare.add_argument("--copy-dir", action="append", default=[], metavar="LOCAL:REMOTE")
    prepare.add_argument("--sandbox-init-cmd", metavar="TEXT", help="run it when the files are in place")
    prepare.add_argument("--context-dir", metavar="FOLDER", help="the context (default: the working directory)")
    prepare.add_argument("--from-base-image", metavar="IMAGE", help="only bring a difference to this image")
    prepare.add_argument("--patch-file", metavar="FILE", help="the difference as a git patch")
    prepare.add_argument("--patch-script", metavar="FILE", help="the difference as a text for sh")
    prepare.add_argument("--post-patch-cmd", metavar="TEXT", help="run it after the difference")
    root = os.environ.get("OFFLOAD_REPO_ROOT") or "/app"
    prepare.add_argument("--sandbox-project-root", default=root, metavar="FOLDER", help=f"the root (default: {root})")
    prepare.add_argument("--force", action="store_true", help="build each layer anew")
    create = calls.add_parser("create", help="make a sandbox and print its id")
    create.add_argument("image")
    create.add_argument("--cpu", type=float)
    create.add_argument("--memory-gb", type=float)
    create.add_argument("--env", action="append", default=[], metavar="KEY=VALUE")
    create.add_argument("--experimental-options", default="{}", metavar="JSON")
    create.add_argument("--timeout", type=int, default=14400, metavar="SECONDS")
    create.add_argument("--idle-timeout", type=int, default=300, metavar="SECONDS")
    execute = calls.add_parser("exec", help="run a shell text in a sandbox")
    execute.add_argument("sandbox")
    execute.add_argument("command")
    download = calls.add_parser("download", help="copy files out of a sandbox")
    download.add_argument("sandbox")
    download.add_argument("paths", nargs="+", metavar="REMOTE:LOCAL")
    calls.add_parser("destroy", help="end a sandbox").add_argument("sandbox")
    calls.add_parser("driver", help="answer JSON lines until the input ends")
    return result


def main():
    arguments = parser().parse_args()
    # Standard output is for answers alone, whatever the SDK prints.
    answers = os.fdopen(os.dup(1), "w")
    if arguments.call != "exec":
        os.dup2(2, 1)
    arguments.answers = answers
    try:
        status = asyncio.run(drive(answers) if arguments.call == "driver" else once(arguments))
    except Exception as error:
        print(f"modal_sandbox: {type(error).__name__}: {error}", file=sys.stderr)
        status = TEMPFAIL if type(error).__name__ in THROTTLED else 1
    for stream in (answers, sys.stdout, sys.stderr):
        stream.flush()
    # The SDK's threads have no more work.
    os._exit(status or 0)


if __name__ == "__main__":
    main()
