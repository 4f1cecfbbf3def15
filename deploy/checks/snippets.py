"""Writes the files that a document shows into a folder.

usage: snippets.py DOCUMENT OUT

A file is a code block after a line <!-- file: NAME -->.
"""

import pathlib
import re
import sys

text = pathlib.Path(sys.argv[1]).read_text(encoding="utf-8")
files = re.findall(r"^<!-- file: (\S+) -->\n```\w*\n(.*?)^```$", text, re.M | re.S)
if not files:
    sys.exit(f"{sys.argv[1]} shows no files")
for name, content in files:
    (pathlib.Path(sys.argv[2]) / name).write_text(content, encoding="utf-8")
