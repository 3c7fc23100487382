import type { IncomingMessage, ServerResponse } from 'node:http';
import type { Clock } from '../base/clock.ts';
import type { Logger } from '../base/log.ts';
import type { RecordEntry } from '../operations/call-record.ts';
import type { Runtime } from '../operations/runtime.ts';
import { LazyRuntime, type StartedFleet } from '../page/lazy-runtime.ts';
import { PageServer } from '../page/page-server.ts';
import type { PageTarget } from '../page/target.ts';
import type { Role } from './access/admission.ts';

export interface NodePageDeps {
  /** This machine's own instances. */
  readonly own: Runtime;
  /** Starts discovery on all machines, as this user's MCP server does. */
  readonly startAll: () => Promise<StartedFleet>;
  /** The setting `readOnly`: the page shows and never acts. */
  readonly readOnly: boolean;
  readonly record: (entry: RecordEntry) => void;
  readonly clock: Clock;
  readonly logger: Logger;
}

export interface PageVisitor {
  readonly caller: string;
  readonly role: Role;
  readonly isNodeUser: boolean;
}

/**
 * The page of a node service. The node's own user sees every machine; other callers see this machine's own instances only, because
 * on other machines the service would act with its user's rights.
 */
export class NodePage {
  readonly #deps: NodePageDeps;
  readonly #server: PageServer;
  readonly #all: LazyRuntime;

  constructor(deps: NodePageDeps) {
    this.#deps = deps;
    this.#server = new PageServer(deps);
    this.#all = new LazyRuntime(deps.startAll, deps.clock);
  }

  /** Never rejects. `signal` ends the exchange. */
  async answer(
    request: IncomingMessage,
    response: ServerResponse,
    {
      target,
      visitor,
      signal,
    }: { readonly target: PageTarget; readonly visitor: PageVisitor; readonly signal: AbortSignal },
  ): Promise<void> {
    const { own, readOnly } = this.#deps;
    const { caller, role, isNodeUser } = visitor;
    await this.#server.answer(request, response, {
      target,
      signal,
      caller: { name: caller, role: readOnly ? 'read' : role, ...(role === 'read' && { isGuest: true }) },
      origin: `http://${request.headers.host}`,
      open: async () =>
        isNodeUser ? { ...(await this.#all.use()), all: true } : { runtime: own, all: false, release: () => {} },
    });
  }

  close(): Promise<void> {
    return this.#all.close();
  }
}
