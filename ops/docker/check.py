#!/usr/bin/env python3
"""Checks the settings of the image and of compose.yaml: `check.py <binary>`. Needs PyYAML.

No engine runs here. So this checks what can be checked without one: the server takes every variable, what is mounted is
declared, and the container is confined.
"""

import pathlib
import re
import sys

import yaml

FOLDER = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(FOLDER.parent))
import settings

DOCKERFILE = (FOLDER / "Dockerfile").read_text()


def main():
    binary = sys.argv[1]
    image = dict(re.findall(r"(POSTRIDER_\w+)=(\S+)", DOCKERFILE))
    compose = yaml.safe_load((FOLDER / "compose.yaml").read_text())
    service = compose["services"]["postrider"]
    problems = settings.check(binary, image) + settings.check(binary, image | service["environment"])
    version = re.search(r'^version = "(.+)"$', (FOLDER.parent.parent / "Cargo.toml").read_text(), flags=re.M)[1]
    if service["image"] != f"postrider:{version}":
        problems.append(f"compose.yaml runs {service['image']}, and this is {version}")
    user = re.search(r"^USER (\d+):(\d+)$", DOCKERFILE, flags=re.M)
    if not any(f"uid={user[1]},gid={user[2]}" in mount for mount in service["tmpfs"] if mount.startswith(image["POSTRIDER_DATA_DIR"])):
        problems.append("the data directory of compose.yaml is not the user's of the image")
    if not service["read_only"] or service["cap_drop"] != ["ALL"]:
        problems.append("the container of compose.yaml is not confined")
    for name, other in compose["services"].items():
        used = {f"/run/secrets/{secret}" for secret in other["secrets"]}
        named = {value for key, value in other["environment"].items() if key.endswith("_FILE")}
        if used != named or not set(other["secrets"]) <= set(compose["secrets"]):
            problems.append(f"{name} names the secrets {sorted(named)}, and has {sorted(used)}")
    if service["depends_on"]["database"]["condition"] != "service_healthy" or "healthcheck" not in compose["services"]["database"]:
        problems.append("postrider does not wait for its database")
    if problems:
        sys.exit("\n".join(problems))
    print("the server takes the settings of the image and of compose.yaml")


main()
