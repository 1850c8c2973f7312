"""Puts one message on a queue that Posthaste consumes: publish.py AMQP_URL QUEUE MESSAGE_ID BODY"""

import sys

import pika


def publish(url, queue, message_id, body):
    """Returns when the broker has the message. Raises otherwise: then call it again, with the same message_id."""
    if not message_id:
        raise ValueError("without a message_id a repeat would take effect again")
    connection = pika.BlockingConnection(pika.URLParameters(url))
    try:
        channel = connection.channel()
        channel.confirm_delivery()  # without it nobody tells you that a message was lost
        channel.basic_publish(
            exchange="",
            routing_key=queue,
            body=body,
            mandatory=True,  # a queue that does not exist is an error, not silence
            properties=pika.BasicProperties(
                message_id=message_id,  # makes a repeat harmless
                content_type="text/plain; charset=utf-8",
                delivery_mode=pika.DeliveryMode.Persistent,
            ),
        )
    finally:
        connection.close()


if __name__ == "__main__":
    if len(sys.argv) != 5:
        sys.exit(__doc__)
    url, queue, message_id, body = sys.argv[1:]
    publish(url, queue, message_id, body.encode())
