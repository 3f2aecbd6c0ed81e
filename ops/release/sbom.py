#!/usr/bin/env python3
"""Writes to standard output what the binary is built from, as CycloneDX 1.5: `python3 ops/release/sbom.py <target triple>`.

A crate that only build scripts and macros use has the scope `excluded`: none of it is in the binary. The time is that of
SOURCE_DATE_EPOCH, so that the same commit always gives the same file.
"""

import datetime
import json
import os
import pathlib
import re
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent


def cargo(*arguments):
    return subprocess.run(["cargo", *arguments], cwd=ROOT, check=True, capture_output=True, text=True).stdout


def crates_of(edges, triple):
    """Name and version of every crate that the binary needs by these edges."""
    lines = cargo("tree", "--locked", "--package", "postrider", "--target", triple, "--edges", edges, "--prefix", "none", "--format", "{p}")
    return {(name, version) for name, version in re.findall(r"^(\S+) v(\S+)", lines, flags=re.M)}


def checksums():
    packages = (ROOT / "Cargo.lock").read_text().split("[[package]]")[1:]
    fields = [dict(re.findall(r'^(\w+) = "(.+)"$', package, flags=re.M)) for package in packages]
    return {(package["name"], package["version"]): package.get("checksum") for package in fields}


def reference(package):
    return f"pkg:cargo/{package['name']}@{package['version']}"


def component(package, checksum, kind, scope=None):
    described = {"type": kind, "bom-ref": reference(package), "name": package["name"], "version": package["version"],
                 "purl": reference(package)}
    if package.get("license"):
        # The older form of an alternative has a slash.
        described["licenses"] = [{"expression": package["license"].replace("/", " OR ")}]
    if scope:
        described["scope"] = scope
    if checksum:
        described["hashes"] = [{"alg": "SHA-256", "content": checksum}]
    return described


def main():
    triple = sys.argv[1]
    needed, linked = crates_of("normal,build", triple), crates_of("normal,no-proc-macro", triple)
    metadata = json.loads(cargo("metadata", "--locked", "--format-version", "1", "--filter-platform", triple))
    packages = {package["id"]: package for package in metadata["packages"] if (package["name"], package["version"]) in needed}
    sums = checksums()
    listed = sorted(packages.values(), key=lambda package: (package["name"], package["version"]))
    root = next(package for package in listed if package["name"] == "postrider")
    dependencies = []
    for node in metadata["resolve"]["nodes"]:
        if node["id"] in packages:
            used = [dependency["pkg"] for dependency in node["deps"]
                    if any(kind["kind"] != "dev" for kind in dependency["dep_kinds"])]
            dependencies.append({"ref": reference(packages[node["id"]]),
                                 "dependsOn": sorted({reference(packages[used_id]) for used_id in used if used_id in packages})})
    time = datetime.datetime.fromtimestamp(int(os.environ["SOURCE_DATE_EPOCH"]), datetime.timezone.utc)
    document = {
        "bomFormat": "CycloneDX", "specVersion": "1.5", "version": 1,
        "metadata": {"timestamp": time.strftime("%Y-%m-%dT%H:%M:%SZ"), "component": component(root, None, "application")},
        "components": [
            component(package, sums[package["name"], package["version"]], "library",
                      "required" if (package["name"], package["version"]) in linked else "excluded")
            for package in listed if package is not root],
        "dependencies": sorted(dependencies, key=lambda entry: entry["ref"]),
    }
    json.dump(document, sys.stdout, indent=1)
    print()


main()
