"""A program behind a bus name: it takes notices, writes each as a line of JSON, and answers as it was told to.

`python bus_listener.py NAME FILE ANSWER`; ANSWER: `return`, `refuse`, `hang`, `leave`, or `flood` (signals first).
"""

from __future__ import annotations

import asyncio
import json
import os
import sys

from dbus_fast import BusType, Message, MessageType
from dbus_fast.aio import MessageBus

PATH = "/org/openbits/Notifications"
INTERFACE = "org.openbits.Notifications1"
FLOOD = 50


async def main(name: str, record: str, answer: str) -> None:
    # A dbus-daemon tells those whom it starts where it is.
    bus = await MessageBus(bus_address=os.environ["DBUS_STARTER_ADDRESS"], bus_type=BusType.SESSION).connect()

    def handle(message: Message) -> Message | bool:
        if message.message_type is not MessageType.METHOD_CALL or message.interface != INTERFACE:
            return False
        with open(record, "a", encoding="utf-8") as file:
            said = {"path": message.path, "method": message.member, "signature": message.signature}
            file.write(json.dumps({**said, "arguments": message.body, "uid": os.getuid()}) + "\n")
        match answer:
            case "refuse":
                return Message.new_error(message, "org.example.Busy", "come back later")
            case "hang":
                return True
            case "leave":
                os._exit(3)
            case "flood":
                for number in range(FLOOD):
                    signal = Message.new_signal("/x", "org.example.Noise", "Noise", "s", ["x" * 1000 + str(number)])
                    signal.destination = message.sender
                    bus.send(signal)
        return Message.new_method_return(message)

    bus.add_message_handler(handle)
    await bus.request_name(name)
    await bus.wait_for_disconnect()  # type: ignore[no-untyped-call]  # the library says no types there


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
