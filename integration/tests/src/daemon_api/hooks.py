"""What schemathesis has to know of croftd's API beside its document: what is there, and what has no end."""

import io
import json
import os
import re
import tarfile

import jsonschema_rs
import schemathesis
from hypothesis import strategies as st

# What the test has made. What is called `gone` is there to be removed.
FOLDER = os.environ["STAGE"]
THERE = {
    "containers": ["web", "idle", "done", "job"],
    "networks": ["back", "croft"],
    "volumes": ["data"],
    "images": ["box"],
}
IMAGE = st.sampled_from(["box", "box", "gone", "nothing/like:it", "localhost:1/a", "UPPER", "sha256:00"])
QUERIES = {
    "image": IMAGE,
    "images": st.lists(IMAGE, max_size=3).map(",".join),
    "names": st.lists(st.sampled_from(["web", "job", "nobody"]), max_size=3).map(",".join),
    "path": st.sampled_from(["/", "/etc", "/etc/passwd", "bin/sh", "/dev/null", "/proc/self", "/data/", "/nothing", "a/../.."]),
    "since": st.sampled_from(["0", "5", "2020-01-01T00:00:00Z", "18446744073709551615", "-1"]),
    "until": st.sampled_from(["2100-01-01T00:00:00+02:00", "yesterday"]),
    "tail": st.sampled_from([0, 1, 18446744073709551615]),
    "stdout": st.sampled_from(["oldest", "now", "3", "18446744073709551615"]),
    "signal": st.sampled_from(["TERM", "SIGHUP", "1", "64", "0", "RTMIN+1", "WHAT"]),
}
BODIES = {
    "image": IMAGE,
    "path": st.sampled_from(["rootfs.tar", "rootfs", "nothing"]).map(lambda name: os.path.join(FOLDER, name)),
    "network": st.sampled_from(["back", "croft", "nothing"]),
    "command": st.sampled_from([[], ["sleep", "1000"], ["true"], ["nothing"], [""]]),
    "env": st.sampled_from([[], ["A=b", "C="], ["=x"], ["none"]]),
    "user": st.sampled_from(["root", "user", "1000:5", "nobody", ""]),
    "workdir": st.sampled_from(["/", "/tmp", "tmp", "/made"]),
    "subnets": st.sampled_from([[], ["10.99.0.0/24"], ["10.99.0.0/33"], ["fd00:1::/64"], ["0.0.0.0/0"], ["::/128"]]),
    "gateways": st.sampled_from([[], ["10.99.0.1"], ["fd00:1::1"], ["255.255.255.255"]]),
}
# Whole bodies where one wrong part hides all else. The registry asks who comes. What the test logged in at is the name with the
# address; logins and logouts here are at another name of it, so that they come between no pull or push and its end.
REGISTRY, OTHER_NAME = os.environ["REGISTRY"], os.environ["REGISTRY"].replace("127.0.0.1", "localhost")
ME = {"registry": OTHER_NAME, "user": "me", "password": "secret"}
WHOLE = {
    "/v1/networks": [{"name": "made", "subnets": ["10.98.0.0/24"]}, {"name": "inside", "internal": True}, {"name": "back"}],
    "/v1/images/pull": [{"image": f"{REGISTRY}/there"}, {"image": f"{REGISTRY}/there", "platform": "a/b/c/d"}, {"image": f"{REGISTRY}/not"}],
    "/v1/images/push": [{"image": f"{REGISTRY}/box"}, {"image": f"{REGISTRY}/not"}],
    "/v1/images/tag": [{"image": "box", "name": "other:v2"}, {"image": "box", "name": "NO NAME"}, {"image": "nothing", "name": "other"}],
    "/v1/registries/login": [ME, {**ME, "password": "wrong"}, {**ME, "user": "me:me"}],
    "/v1/registries/logout": [{"registry": OTHER_NAME}],
}


def known(container, words):
    """`container`, some of whose values are what croftd may know something about."""
    here = [key for key in words if isinstance(container, dict) and key in container]
    if not here:
        return st.just(container)
    some = st.fixed_dictionaries({}, optional={key: words[key] for key in here})
    return some.map(lambda chosen: {**container, **chosen})


@schemathesis.hook
def flatmap_path_parameters(context, path_parameters):
    there = THERE.get(context.operation.path.split("/")[2], [])
    names = {"name": st.sampled_from([*there, "gone"]), "network": st.sampled_from(THERE["networks"])}
    return known(path_parameters, names)


@schemathesis.hook
def flatmap_query(context, query):
    return known(query, QUERIES)


@schemathesis.hook
def flatmap_body(context, body):
    whole = WHOLE.get(context.operation.path)
    some = known(body, BODIES)
    return st.one_of(st.sampled_from(whole), some) if whole else some


@schemathesis.hook
def before_call(context, case, kwargs):
    operation, query, parts = case.operation, case.query or {}, case.path_parameters or {}
    # What goes on without end cannot be compared with the document: what is there so far is asked for.
    for endless in ("follow", "stream"):
        if endless in query and query[endless] not in (False, "false"):
            query[endless] = False
    # A number, or its digits.
    if operation.path.endswith(("/stop", "/restart")) and str(query.get("timeout")).isdigit():
        query["timeout"] = min(int(query["timeout"]), 1)
    if operation.path.endswith("/{name}/wait") and parts.get("name") == "web":
        parts["name"] = "done"
    # What the other requests are about stays, under whichever of its names and ids: for its end there is something else.
    known = re.search(r"[0-9a-f]{6}|web|done|job|back|croft|data|box", str(parts.get("name")))
    if known and (operation.method == "delete" or operation.path.endswith("/rename")):
        parts["name"] = "gone"
    if known and operation.path.endswith(("/stop", "/kill", "/pause", "/update")):
        parts["name"] = "idle"
    body = case.body if isinstance(case.body, dict) else {}
    # Nothing of the host but what is made for it becomes an image.
    if operation.path.endswith("/import") and not str(body.get("path")).startswith(FOLDER):
        replace(body, "path", os.path.join(FOLDER, "rootfs"))
    # There is no other registry here, nor Debian's archive: to find that out takes seconds.
    if operation.path.endswith(("/pull", "/push")) and not str(body.get("image")).startswith(REGISTRY):
        replace(body, "image", "NO NAME")
    if operation.path.endswith("/login") and body.get("registry") != OTHER_NAME:
        replace(body, "registry", "no host")
    if operation.path.endswith("/build-rootfs"):
        replace(body, "suite", "--help")
    # A container of an image that is not there shows nothing of all else that it is asked for.
    if operation.path == "/v1/containers" and not body.get("image"):
        replace(body, "image", "box")
    # Seldom is a random program one that the container has.
    if operation.path.endswith("/exec") and body and len(str(body)) % 2:
        body.update(command=["true"], env=[], user=None, workdir=None)
        case.path_parameters["name"] = "web"


@schemathesis.hook
def after_call(context, case, response):
    """Notes what was answered, for the test: the status, and how it ended where the last line of the answer says that."""
    end = ""
    if case.operation.path.endswith(("/pull", "/push")) and response.status_code == 200:
        end = json.loads(response.content.splitlines()[-1])["state"]
    with open(os.path.join(FOLDER, "answers"), "a") as answers:
        print(case.operation.method.upper(), case.operation.path, response.status_code, end, file=answers)


def replace(body, key, value):
    """Puts `value` in the place of one that is of the right type, if there is one."""
    if isinstance(body.get(key), str):
        body[key] = value


NAMES = st.sampled_from(["file", "a/b", "/etc/over", "../up", "x" * 200, ".wh.bin", "link", "link/inside", "index.json"])
KINDS = [getattr(tarfile, kind + "TYPE") for kind in ("REG", "SYM", "LNK", "DIR", "FIFO", "CHR")]


def archive(entries):
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for name, kind, content in entries:
            info = tarfile.TarInfo(name)
            info.type, info.linkname = kind, "/etc" if kind in (tarfile.SYMTYPE, tarfile.LNKTYPE) else ""
            info.size = len(content) if kind == tarfile.REGTYPE else 0
            tar.addfile(info, io.BytesIO(content))
    return out.getvalue()


ENTRIES = st.lists(st.tuples(NAMES, st.sampled_from(KINDS), st.binary(max_size=700)), max_size=4)
schemathesis.openapi.media_type("application/x-tar", st.one_of(st.binary(max_size=2000), ENTRIES.map(archive)))


@schemathesis.check
def lines_conform(ctx, response, case):
    """Each line of an answer that comes by lines is as the document says."""
    kind = "application/x-ndjson"
    if response.headers.get("content-type", [""])[0] != kind:
        return
    described = case.operation.definition.raw["responses"]["200"]["content"][kind]["schema"]
    schema = {**described, "components": case.operation.schema.raw_schema["components"]}
    validator = jsonschema_rs.Draft202012Validator(schema)
    for line in response.content.splitlines():
        wrong = next(validator.iter_errors(json.loads(line)), None)
        assert wrong is None, f"{line!r}: {wrong.message}"
