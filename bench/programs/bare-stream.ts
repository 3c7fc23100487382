/**
 * Baseline of the first streamed token: only a reader of the event stream, whose URL is its only argument. Orders: `open`, `wait`
 * (for the next text delta) and `close`.
 */
import { serveOrders } from './orders.ts';

export interface BareStreamOrder {
  readonly order: 'open' | 'wait' | 'close';
}

/** When the text arrived, in ns of the monotonic clock that all processes share. */
export interface BareArrival {
  readonly atNs: string;
}

const url = process.argv[2] ?? '';
let stop = new AbortController();
let arrive: (arrival: BareArrival) => void = () => {};

await serveOrders({}, async (line) => {
  const { order } = line as BareStreamOrder;
  if (order === 'wait') return await new Promise<BareArrival>((resolve) => (arrive = resolve));
  stop.abort();
  if (order === 'open') {
    stop = new AbortController();
    const { body } = await fetch(url, { signal: stop.signal, headers: { accept: 'text/event-stream' } });
    if (body === null) throw new Error(`Expected an event stream at ${url}, got no body`);
    void follow(body).catch(() => {});
  }
  return {};
});
process.exit(0);

async function follow(body: ReadableStream<Uint8Array>): Promise<void> {
  const decoder = new TextDecoder();
  let rest = '';
  for await (const chunk of body) {
    const blocks = (rest + decoder.decode(chunk, { stream: true })).split('\n\n');
    rest = blocks.pop() ?? '';
    for (const block of blocks) {
      const event = JSON.parse(block.slice('data: '.length)) as { readonly type: string };
      if (event.type === 'message.part.delta') arrive({ atNs: String(process.hrtime.bigint()) });
    }
  }
}
