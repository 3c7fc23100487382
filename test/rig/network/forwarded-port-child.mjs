// Listens on a port of 127.0.0.1 and passes the socket to its parent, which serves it.
import { createServer } from 'node:net';
import process from 'node:process';

const server = createServer();
server.listen(Number(process.argv[2]), '127.0.0.1', () => process.send?.({ port: server.address().port }, server));
process.once('disconnect', () => process.exit(0));
