import { systemClock } from '../../src/base/clock.ts';
import type { Approver } from '../../src/config/settings.ts';
import type { Fleet } from '../../src/fleet/fleet.ts';
import { RequestJournal } from '../../src/operations/send/request-journal.ts';
import { createRuntime, type Runtime } from '../../src/operations/runtime.ts';

/** A runtime for operations on the real clock. `folder`: for request ids, created with the first. */
export function testRuntime(fleet: Fleet, folder = '/nonexistent/requests', approve: Approver = 'ask'): Runtime {
  return createRuntime(fleet, systemClock, {
    approvals: { approve, approvalRules: [] },
    journal: new RequestJournal(folder, systemClock),
  });
}
