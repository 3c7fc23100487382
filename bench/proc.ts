import { readdirSync, readFileSync } from 'node:fs';

/** Measurements of another process. Linux only. */

const BYTES_PER_KIB = 1024;
const BYTES_PER_MB = 1e6;
const NS_PER_MS = 1e6;

/** Resident memory in MB (10^6 bytes), current and peak. */
export function residentMb(pid: number): { readonly now: number; readonly highest: number } {
  const status = readFileSync(`/proc/${pid}/status`, 'utf8');
  const field = (name: string): number => {
    const kib = new RegExp(`^${name}:\\s+(\\d+) kB$`, 'm').exec(status)?.[1];
    if (kib === undefined) throw new Error(`Expected ${name} in /proc/${pid}/status, got none`);
    return (Number(kib) * BYTES_PER_KIB) / BYTES_PER_MB;
  };
  return { now: field('VmRSS'), highest: field('VmHWM') };
}

/** Processor time of all threads so far, in ms; less disturbed by neighbours than wall time. */
export function processorMs(pid: number): number {
  let ns = 0;
  for (const thread of readdirSync(`/proc/${pid}/task`)) {
    ns += Number(readFileSync(`/proc/${pid}/task/${thread}/schedstat`, 'utf8').split(' ', 1)[0]);
  }
  return ns / NS_PER_MS;
}
