import { createInterface } from 'node:readline';

/** Answers each line of JSON on standard input with one on standard output, until the input ends. */
export async function serveOrders(
  ready: object,
  carryOut: (order: unknown) => Promise<object> | object,
): Promise<void> {
  print(ready);
  for await (const line of createInterface({ input: process.stdin }))
    print(await carryOut(JSON.parse(line) as unknown));
}

function print(value: object): void {
  process.stdout.write(`${JSON.stringify(value)}\n`);
}
