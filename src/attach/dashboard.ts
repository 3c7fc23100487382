import type { IncomingMessage } from 'node:http';
import { plainTarget } from '../node/proxy/request-target.ts';
import { refuse } from '../node/proxy/proxy.ts';
import { PAGE_PREFIX, type PageCaller } from '../page/contract.ts';
import type { Runtime } from '../operations/runtime.ts';
import { answerJson } from '../page/json-answer.ts';
import { PageServer, type PageServerDeps } from '../page/page-server.ts';
import { type PageTarget, readPageTarget } from '../page/target.ts';
import { type DoorOptions, type OpenDoor, openDoor } from './door.ts';

export interface DashboardOptions extends PageServerDeps, Pick<DoorOptions, 'isOwnPeer'> {
  readonly runtime: Runtime;
  readonly caller: PageCaller;
}

/** Serves the page to one browser of this user, on this machine only. */
export async function openDashboard(options: DashboardOptions): Promise<OpenDoor> {
  const { runtime, caller, isOwnPeer } = options;
  const server = new PageServer(options);
  return await openDoor({
    entrance: `${PAGE_PREFIX}enter/`,
    start: '/',
    command: 'opencode-mcp dashboard',
    isOwnPeer,
    upstream: () => Promise.resolve({ status: 404, text: 'Not found.' }),
    refuse: (request, response, refusal) => {
      const target = targetOf(request);
      // The page's scripts expect errors as JSON.
      if (target === undefined || 'file' in target) refuse(response, refusal);
      else answerJson(response, refusal.status, { error: refusal.text });
    },
    answer: async (request, response, signal) => {
      const target = targetOf(request);
      if (target === undefined) return false;
      await server.answer(request, response, {
        target,
        caller,
        signal,
        // `openDoor` has checked the host.
        origin: `http://${request.headers.host}`,
        open: () => Promise.resolve({ runtime, all: true, release: () => {} }),
      });
      return true;
    },
  });
}

function targetOf({ url = '' }: IncomingMessage): PageTarget | undefined {
  const plain = plainTarget(url);
  return plain && readPageTarget(plain);
}
