#!/usr/bin/python3
"""An HTTP server with asyncio that loses no request when it is told to leave."""

import asyncio
import json
import os
import signal

import einhorn_worker as einhorn


async def answer(reader, writer):
    try:
        await reader.readuntil(b"\r\n\r\n")
        body = json.dumps({"pid": os.getpid(), "hello": "from asyncio"}, separators=(",", ":")) + "\n"
        head = f"HTTP/1.1 200 OK\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n"
        writer.write((head + body).encode())
        await writer.drain()
        writer.close()
        await writer.wait_closed()
    except (asyncio.IncompleteReadError, ConnectionError):
        writer.close()  # the client went away


async def main():
    stop = asyncio.Event()
    for number in (signal.SIGUSR2, signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    if einhorn.socket_count():
        server = await asyncio.start_server(answer, sock=einhorn.listener())
    else:
        server = await asyncio.start_server(answer, "127.0.0.1", 8080)
    einhorn.ack()
    await stop.wait()
    await einhorn.drain(server)


asyncio.run(main())
