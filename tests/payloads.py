"""Texts that try to be more than a text, in one language of queries or another."""

from __future__ import annotations

from typing import Final

#: What breaks out of a text, a name, a comment or a path in one language or another.
_ENDS: Final = ("'", '"', "`", "\\'", "''", "\\", ")", "']", '"]', "*/", "$$", "\n", ";", "{", "%s")
_BODIES: Final = (
    "; DROP TABLE {t}; --",
    " OR 1=1 --",
    " UNION SELECT 1,2,3 --",
    "; DELETE FROM {t} WHERE 1=1; #",
    "; UPDATE {t} SET name='x'; --",
    ") FROM {t}; TRUNCATE {t}; --",
    "||pg_sleep(9)||",
    " AND SLEEP(9) AND '1'='1",
    "/*!50000 DROP TABLE {t} */",
    "; COPY {t} TO '/tmp/llmops'; --",
    " INTO OUTFILE '/tmp/llmops",
    "; ATTACH '/tmp/x.db'; --",
    "; SET GLOBAL general_log=1; --",
    "{{p:String}}",
    "$1 :name ? %(x)s",
    " FORMAT Null; DROP TABLE {t}",
    "', url('http://127.0.0.1:9/'), '",
    "read_csv('/etc/passwd')",
    "$.*",
    "'-(SELECT 1)-'",
)
PAYLOADS: Final = tuple(
    end + body.replace("{t}", "llmops_spans") for end in _ENDS for body in _BODIES
)
