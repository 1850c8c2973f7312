"""Takes messages that Posthaste hands over, each once in effect: consume_once.py AMQP_URL QUEUE DATABASE [IDLE_SECONDS]

Ends when nothing has come for IDLE_SECONDS; without them it goes on for ever.
"""

import sqlite3
import sys

import pika

TABLES = """
CREATE TABLE IF NOT EXISTS seen (message_id TEXT PRIMARY KEY);
CREATE TABLE IF NOT EXISTS effect (business_id TEXT, body BLOB);
"""


def handle(database, message_id, business_id, body):
    """The id and the effect are committed together, so a repeat finds the id and does nothing."""
    with database:  # one transaction
        new = database.execute("INSERT OR IGNORE INTO seen VALUES (?)", (message_id,)).rowcount == 1
        if new:
            database.execute("INSERT INTO effect VALUES (?, ?)", (business_id, body))
    return new


def consume(url, queue, database, idle=None):
    connection = pika.BlockingConnection(pika.URLParameters(url))
    channel = connection.channel()
    channel.basic_qos(prefetch_count=20)
    for delivery, properties, body in channel.consume(queue, inactivity_timeout=idle):
        if delivery is None:
            break
        if not properties.message_id:  # not from Posthaste: it stays on the queue, for a person to look at
            sys.exit("a message without a message_id: a repeat of it could not be recognised")
        business_id = (properties.headers or {}).get("x-message-id")
        new = handle(database, properties.message_id, business_id, body)
        channel.basic_ack(delivery.delivery_tag)  # after the commit, never before
        print("done" if new else "repeat", business_id, flush=True)
    connection.close()


if __name__ == "__main__":
    if len(sys.argv) not in (4, 5):
        sys.exit(__doc__)
    url, queue, path, *idle = sys.argv[1:]
    database = sqlite3.connect(path)
    database.executescript(TABLES)
    consume(url, queue, database, float(idle[0]) if idle else None)
