"""Keep spans in MySQL or MariaDB: ``mysql://user@host/database``, ``mariadb://…``."""

from llmops_core.storage.mysql.storage import MySQLStorage, llmops_register

__all__ = ["MySQLStorage", "llmops_register"]
