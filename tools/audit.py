"""Known vulnerabilities and licences of the packages of an environment; code 1 where one is wrong. `make audit`.

python tools/audit.py TOOLS ENVIRONMENT      folders of virtual environments: that of pip-audit and pip-licenses, and
the one to be looked at. Where the database of vulnerabilities is out of reach this is said, and is no failure.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

FITTING = (
    "MIT", "BSD", "Apache", "ISC", "Python Software Foundation", "PSF", "MPL", "Mozilla Public License",
    "Public Domain", "0BSD", "Zlib", "CNRI-Python", "DFSG approved", "HPND", "Unlicense",
)  # fmt: skip
"""Parts of the names of licences whose packages may be used beside Apache-2.0."""
UNTOLD = {
    "axe-playwright-python": "MIT",
    "pycocoevalcap": "BSD-2-Clause",
}  # development only; no licence in the metadata


def vulnerabilities(tools: Path, packages: Path) -> bool:
    """Print the known vulnerabilities of what lies in a ``site-packages``; whether there are any."""
    command = [
        str(tools / "bin" / "pip-audit"),
        "--path",
        str(packages),
        "--progress-spinner",
        "off",
        "--format",
        "json",
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    try:
        found = json.loads(done.stdout)["dependencies"]
    except ValueError:
        print(f"vulnerabilities: NOT COMPARED, the database is out of reach: {done.stderr.strip()[-200:]}")
        return False
    compared = [one for one in found if "vulns" in one]
    if not compared:
        print(f"vulnerabilities: NOT COMPARED, the database knows none of the {len(found)} packages: is it in reach?")
        return False
    bad = [(one["name"], one["version"], vuln) for one in compared for vuln in one["vulns"]]
    for name, version, vuln in bad:
        print(f"{name} {version}: {vuln['id']}, mended in {', '.join(vuln['fix_versions']) or 'no version'}")
    skipped = [one["name"] for one in found if "vulns" not in one]
    print(
        f"vulnerabilities: {len(bad)} in {len(compared)} packages" + (f"; not compared: {skipped}" if skipped else "")
    )
    return bool(bad)


def licences(tools: Path, environment: Path) -> bool:
    """Print the packages whose licence does not fit; whether there are any."""
    command = [str(tools / "bin" / "pip-licenses"), f"--python={environment / 'bin' / 'python'}", "--format=json"]
    packages = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    bad = [
        f"{one['Name']} {one['Version']}: {one['License']}"
        for one in packages
        if one["Name"] not in UNTOLD and not any(part in one["License"] for part in FITTING)
    ]
    print(*bad, f"licences: {len(bad)} of {len(packages)} packages do not fit Apache-2.0", sep="\n")
    return bool(bad)


def main() -> None:
    tools, environment = map(Path, sys.argv[1:])
    (packages,) = (environment / "lib").glob("python*/site-packages")
    sys.exit(int(vulnerabilities(tools, packages) | licences(tools, environment)))


if __name__ == "__main__":
    main()
