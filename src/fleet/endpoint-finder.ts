import { messageOf } from '../base/errors.ts';
import { LinkedAbort } from '../base/linked-abort.ts';
import { quoteName, quoteShort } from '../base/plain-text.ts';
import { requestJson } from '../http/exchange.ts';
import { serviceSessionsOf, sessionsOf } from '../probing/answers.ts';
import { isOfDirectory } from '../probing/probe-task.ts';
import { LATEST_SERVICE_SESSIONS, olderSessions } from '../probing/list-sessions.ts';
import { type Reached, UnreachableError } from './contract.ts';
import type { EndpointRecord } from './endpoint-record.ts';
import type { EndpointTable } from './endpoint-table.ts';
import type { Instance } from '../model/instance.ts';
import { stillSameProcess, sameProcessAs, endpointsTo } from './same-process.ts';
import { isSame } from '../identity/names.ts';
import { identityOf } from '../identity/naming.ts';
import type { ProbeOutcome, Prober } from '../probing/prober.ts';
import { findEndpoint, MAX_PATH_CHARS, type ReachGoal } from './reach.ts';

export interface EndpointFinderDeps {
  readonly table: EndpointTable;
  readonly prober: Pick<Prober<EndpointRecord>, 'batch'>;
  readonly instances: () => readonly Instance[];
  /** Takes over the outcome of an endpoint that was probed but not chosen. */
  readonly settle: (record: EndpointRecord, outcome: ProbeOutcome) => void;
}

/** A session with its summary can be long, and so can a list of sessions. */
const MAX_SESSION_BYTES = 2 * 1024 * 1024;
/** More than the longest path; a summary's diffs are cut. */
const MAX_STRING_BYTES = 16 * 1024;
const LATEST_SESSIONS = '/experimental/session?limit=500';
/** A cold opencode takes several seconds. */
const WITNESS_LIMIT_MS = 15_000;

/**
 * Checks that the server has a session in `directory`. Another process with the same own directory may answer, and a request that names a
 * directory runs its code.
 * @throws {UnreachableError}
 */
async function checkWitness(
  { name, overview }: Instance,
  directory: string,
  {
    connection,
    dialect,
    signal,
  }: Pick<Reached, 'connection' | 'dialect'> & { readonly signal: AbortSignal | undefined },
): Promise<void> {
  const quotedDirectory = quoteShort(directory, MAX_PATH_CHARS);
  const limits = {
    timeoutMs: WITNESS_LIMIT_MS,
    maxBytes: MAX_SESSION_BYTES,
    maxStringBytes: MAX_STRING_BYTES,
    signal,
  };
  const { witness } = overview ?? {};
  const ask = (path: string): Promise<unknown> => requestJson(connection, path, limits);
  let isThere = false;
  try {
    if (dialect === 'opencode-1') {
      if (witness !== undefined) isThere = await isOfDirectory(ask(`/session/${witness}`), directory);
      // The known session may have been deleted while others exist.
      isThere ||= sessionsOf(await ask(LATEST_SESSIONS))?.some((one) => one.directory === directory) === true;
    } else {
      // Not filtered by directory: its name may come from another machine.
      const latest = await ask(LATEST_SERVICE_SESSIONS);
      const isOf = ({ directory: other }: { readonly directory: string }): boolean => other === directory;
      isThere = serviceSessionsOf(latest)?.some(isOf) === true;
      if (!isThere)
        for await (const { sessions } of olderSessions(latest, ask)) if ((isThere = sessions.some(isOf))) break;
    }
  } catch (error) {
    throw new UnreachableError(
      ({ again }) =>
        `${quoteName(name)} cannot be driven now: ${connection.endpoint.url} did not say whether it still has a session in ${quotedDirectory}: ${messageOf(error)}; ${again}.`,
      { cause: error },
    );
  }
  if (!isThere) {
    throw new UnreachableError(
      ({ look }) =>
        `${quoteName(name)} cannot be driven now: the opencode at ${connection.endpoint.url} has no session in ${quotedDirectory} any more; ${look} and choose again.`,
    );
  }
}

/** Finds the endpoint through which an instance is driven, and the next one to the same process. */
export class EndpointFinder {
  readonly #deps: EndpointFinderDeps;

  constructor(deps: EndpointFinderDeps) {
    this.#deps = deps;
  }

  async reach(instance: Instance, signal: AbortSignal | undefined): Promise<Reached> {
    const goal = { name: instance.name, records: this.#endpointsOf(instance), directory: instance.server.directory };
    const { record, ...found } = await this.#find(goal, signal);
    const instances = this.#deps.instances();
    const { directory = found.serverDirectory } = instance;
    if (directory !== found.serverDirectory)
      await checkWitness(instance, directory, { connection: found.connection, dialect: found.dialect, signal });
    const isIt = ({ server, directory: other = found.serverDirectory }: Instance): boolean =>
      other === directory && server.endpoints.some(({ id }) => id === record.id);
    return {
      ...found,
      directory,
      instance: instances.find(isIt) ?? instance,
      sameProcess: sameProcessAs(record, instances, this.#deps.table),
    };
  }

  async reachAnother(reached: Reached, failed: readonly string[], signal: AbortSignal | undefined): Promise<Reached> {
    const { table, instances } = this.#deps;
    const { name } = reached.instance;
    const sameProcess = stillSameProcess(reached.sameProcess, instances(), table);
    const endpoints = endpointsTo(sameProcess, { name, instances: instances(), table });
    const records = endpoints.filter(({ endpointId }) => !failed.includes(endpointId));
    const { record: _, ...found } = await this.#find({ name, records, directory: reached.serverDirectory }, signal);
    return {
      ...found,
      directory: reached.directory,
      instance: reached.instance,
      sameProcess: stillSameProcess(sameProcess, instances(), table),
    };
  }

  async #find(
    goal: ReachGoal,
    signal: AbortSignal | undefined,
  ): Promise<Omit<Reached, 'instance' | 'directory' | 'sameProcess'> & { readonly record: EndpointRecord }> {
    const batch = this.#deps.prober.batch();
    const over = new LinkedAbort(signal);
    over.signal.addEventListener('abort', () => batch.end(), { once: true });
    if (over.signal.aborted) batch.end();
    try {
      const { record, outcome, healthy, slow } = await findEndpoint(goal, batch);
      for (const late of slow) this.#deps.settle(late.record, late.outcome);
      const { directory: serverDirectory, worktree, version, dialect } = healthy;
      const { connection } = outcome;
      return { record, connection, serverDirectory, worktree, version, dialect, endpointId: record.endpointId };
    } finally {
      over.end();
    }
  }

  /** The endpoints that lead to `instance` now: those shown with it whose registration is unchanged, and those proven since. */
  #endpointsOf(instance: Instance): readonly EndpointRecord[] {
    const { table, instances } = this.#deps;
    const shown = instance.server.endpoints.flatMap(({ id, candidate }) => {
      const record = table.get(id);
      return record !== undefined && isSame(identityOf(record.candidate), identityOf(candidate)) ? [record] : [];
    });
    const now = instances().find(({ name, aliases }) => name === instance.name || aliases?.includes(instance.name));
    if (now === undefined || !now.server.endpoints.some(({ id }) => shown.some((record) => record.id === id)))
      return shown;
    return table.recordsOf(now.server.endpoints);
  }
}
