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
  /** Of this machine's own instances. */
  readonly own: Runtime;
  /** Looks for instances on all machines, as the MCP server of this user does. */
  readonly startAll: () => Promise<StartedFleet>;
  /** The setting read-only: nobody acts from here. */
  readonly readOnly: boolean;
  readonly record: (entry: RecordEntry) => void;
  readonly clock: Clock;
  readonly logger: Logger;
}

/** Who was admitted, and as what. */
export interface PageVisitor {
  readonly caller: string;
  readonly role: Role;
  readonly isNodeUser: boolean;
}

/**
 * The page of a node service. Its own user sees all machines that this one sees; others this machine's own instances, since on
 * another machine this one would act as its user.
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

  /** Never rejects. `signal` cuts it. */
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
