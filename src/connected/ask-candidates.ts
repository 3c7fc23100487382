import { setMaxListeners } from 'node:events';
import { realpath } from 'node:fs/promises';

import { systemClock } from '../base/clock.ts';
import { LinkedAbort } from '../base/linked-abort.ts';
import type { Settings } from '../config/settings.ts';
import { createCredentialResolver } from '../credentials/resolver.ts';
import { createSecretCommands } from '../credentials/secret-commands.ts';
import type { Candidate } from '../model/candidate.ts';
import type { OverviewPart } from '../model/instance.ts';
import { Prober, type ProbeOutcome, type ProbeTarget } from '../probing/prober.ts';
import { createSameDirectory } from '../probing/same-directory.ts';

export type AskSettings = Pick<
  Settings,
  'healthCheckTimeoutMs' | 'healthConcurrency' | 'credentialRules' | 'defaultCredential'
>;

/** Probes each candidate as `opencode-mcp` does, with `parts` of its overview. Results are in the same order, and undefined if `signal` aborts first. Never rejects. */
export async function askCandidates(
  candidates: readonly Candidate[],
  settings: AskSettings,
  signal: AbortSignal,
  parts: readonly OverviewPart[] = [],
): Promise<readonly (ProbeOutcome | undefined)[]> {
  const ending = new LinkedAbort(signal);
  // Each probe adds a listener.
  setMaxListeners(0, ending.signal, signal);
  const commands = createSecretCommands({ clock: systemClock, signal: ending.signal });
  const credentials = createCredentialResolver(settings, { commands });
  const prober = new Prober<ProbeTarget>({
    clock: systemClock,
    slots: settings.healthConcurrency,
    deadlineMs: settings.healthCheckTimeoutMs,
    sameDirectory: createSameDirectory(realpath),
    resolveCredential: (candidate, until) => credentials.resolve(candidate, until),
    onOutcome: () => {},
  });
  const batch = prober.batch();
  ending.signal.addEventListener('abort', () => batch.end(), { once: true });
  try {
    return await Promise.all(candidates.map((candidate) => batch.look({ candidate, standing: 'fresh' }, { parts })));
  } finally {
    ending.end();
    prober.close();
  }
}
