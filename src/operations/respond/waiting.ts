import type { Waiting } from '../../model/instance.ts';
import { describeWaiting, inMarks, type WaitingRequest } from '../../opencode/waiting.ts';

const MAX_CHARS = 500;

/** `permission per_1: «bash "rm -rf build"»`, `answer que_1: «Which color? Red | Blue»`: remote words stand in marks that they cannot contain. */
export function waitingLine({
  kind,
  id,
  text,
  ofSubAgent = false,
}: Pick<Waiting, 'kind' | 'id' | 'text'> & { readonly ofSubAgent?: boolean }): string {
  return `${kind === 'permission' ? 'permission' : 'answer'} ${id}: ${inMarks(text)}${ofSubAgent ? ' (a sub-agent asks)' : ''}`;
}

/** The same for a request as opencode lists it. */
export function requestLine(waiting: WaitingRequest, ofSubAgent: boolean): string {
  const { kind, request } = waiting;
  return waitingLine({ kind, id: request.id, text: describeWaiting(waiting, MAX_CHARS), ofSubAgent });
}
