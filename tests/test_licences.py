"""Every package of the locks has a licence that is known here: a person looks at a new one, or another licence."""

import re

from project import ROOT

LOCKED = re.compile(r"^([A-Za-z0-9._-]+)==", re.MULTILINE)
ROW = re.compile(r"^\| (\S+) +\| (.+?) +\|$", re.MULTILINE)
# Words of licences that ask for no more than a notice.
PERMISSIVE = {
    "MIT", "MIT-CMU", "MIT-0", "BSD", "BSD-2-Clause", "BSD-3-Clause", "3-Clause BSD", "0BSD",
    "BSD-derived (http://www.repoze.org/LICENSE.txt)", "Apache-2.0", "Apache 2.0", "Apache License 2.0",
    "Apache Software", "Apache-2.0 WITH LLVM-exception", "ISC", "ISC (ISCL)", "PSF-2.0", "Python Software Foundation",
    "CNRI-Python", "BSL-1.0", "CC0-1.0", "The Unlicense (Unlicense)", "Zope Public",
}  # fmt: skip
# What docs/licences.md says something about.
TOLD = {
    "unsloth_zoo": "LGPL-3.0-or-later",
    "pygit2": "GPLv2 with linking exception",
    "pycountry": "LGPL-2.1-only",
    "grandalf": "GNU General Public License v2 (GPLv2)",
    "asyncssh": "EPL-2.0 OR GPL-2.0-or-later",
    "certifi": "Mozilla Public License 2.0 (MPL 2.0)",
    "hypothesis": "MPL-2.0",
    "orjson": "MPL-2.0 AND (Apache-2.0 OR MIT)",
    "pathspec": "Mozilla Public License 2.0 (MPL 2.0)",
    "shtab": "MPL-2.0",
    "tqdm": "MPL-2.0 AND MIT",
    "intel-openmp": "Other/Proprietary License",
    "intel-cmplr-lib-ur": "Other/Proprietary License",
    # Their metadata says nothing; their files say MIT, Apache-2.0 or BSD-3-Clause, and Apple's terms for samples.
    "cut-cross-entropy": "UNKNOWN",
    "hf_transfer": "UNKNOWN",
    "oss-harmony": "UNKNOWN",
    "setuptools": "UNKNOWN",
    "torchao": "UNKNOWN",
}


def alike(name):
    return re.sub(r"[-_.]+", "-", name).lower()


def is_permissive(licence):
    """All of it where licences are joined, one of it where there is a choice."""
    licence = re.sub(r" ?License(?=$|;| \()", "", licence)
    if " OR " in licence:
        return any(map(is_permissive, licence.split(" OR ")))
    return all(part.strip() in PERMISSIVE for part in re.split(r" AND |;", licence))


PAGE = (ROOT / "docs/licences.md").read_text()
TABLE = {name: licence for name, licence in ROW.findall(PAGE) if name != "Name"}


def test_each_package_has_a_licence_that_is_known():
    assert len(TABLE) > 200
    other = {
        name: licence for name, licence in TABLE.items() if TOLD.get(name) != licence and not is_permissive(licence)
    }
    assert other == {}, "look at these, say on docs/licences.md what they ask for, and name them here"
    assert [name for name in TOLD if name not in TABLE] == []
    assert [name for name in TOLD if TOLD[name] != "UNKNOWN" and f"`{name}`" not in PAGE and "intel" not in name] == []


def test_the_page_has_every_locked_package():
    """`make licences` writes it; CI fails where it would write another."""
    locked = {
        alike(name)
        for lock in ("torch", "cpu", "share")
        for name in LOCKED.findall((ROOT / f"requirements/{lock}.txt").read_text())
    }
    assert locked == {alike(name) for name in TABLE}


def test_what_is_permissive():
    for licence in ("MIT License", "Apache Software License; MIT License", "GPL-2.0 OR MIT", "BSD-3-Clause AND ISC"):
        assert is_permissive(licence), licence
    for licence in ("GPL-3.0", "MIT AND AGPL-3.0", "UNKNOWN", "SSPL-1.0", "MITx", "GPL-2.0 OR LGPL-3.0"):
        assert not is_permissive(licence), licence
