"""Asks the server whether it takes the settings that a package gives it as variables."""

import subprocess


def check(binary, environment):
    """What is wrong with the variables: a name that the server does not know, or a value that it does not take."""
    shown = subprocess.run([binary, "config", "check"], env=environment, capture_output=True, text=True)
    if shown.returncode:
        return [shown.stderr.strip()]
    taken = {line.split()[0] for line in shown.stdout.splitlines() if "POSTRIDER_" in line.split()[-1]}
    given = {name.removeprefix("POSTRIDER_").lower() for name in environment if name.startswith("POSTRIDER_")}
    return [f"the server does not know the setting {name}" for name in sorted(given - taken)]
