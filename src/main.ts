import './base/lean-heap.ts';

const argv = process.argv.slice(2);
const [first = ''] = argv;
const isServer = first === 'serve' || ((first === '' || first.startsWith('-')) && !process.stdin.isTTY);
const asks = argv.some((word) => ['--help', '-h', '--version', '-v'].includes(word));

// Each is one file when built: a server that an editor keeps for days does not hold the other commands in memory, which took 4 MB.
await (isServer && !asks ? import('./serve.ts') : import('./command.ts'));
