import type { Waiting } from '../directory/instance.ts';
import { describeWaiting, type WaitingRequest } from '../opencode/waiting.ts';
import { singleLine } from '../plain-text.ts';

const MAX_CHARS = 500;

/** `permission per_1: «bash "rm -rf build"»`, `answer que_1: «Which color? Red | Blue»`: the remote's words in marks that they cannot hold. */
export function waitingLine({
  kind,
  id,
  text,
  ofSubAgent = false,
}: Pick<Waiting, 'kind' | 'id' | 'text'> & { readonly ofSubAgent?: boolean }): string {
  const words = text.replaceAll(/[«»]/g, "'");
  return `${kind === 'permission' ? 'permission' : 'answer'} ${singleLine(id, 64)}: «${words}»${ofSubAgent ? ' (a sub-agent asks)' : ''}`;
}

/** As above, of a request as opencode lists it. */
export function requestLine(waiting: WaitingRequest, ofSubAgent: boolean): string {
  const { kind, request } = waiting;
  return waitingLine({ kind, id: request.id, text: describeWaiting(waiting, MAX_CHARS), ofSubAgent });
}
