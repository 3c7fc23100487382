import { silentLogger } from '../../src/base/log.ts';
import { systemClock } from '../../src/base/clock.ts';
import type { Approver } from '../../src/config/settings.ts';
import type { DiscoverySource } from '../../src/discovery/source.ts';
import { createRegistrySource } from '../../src/discovery/registry/registry.ts';
import { type Fleet, LiveFleet } from '../../src/fleet/fleet.ts';
import { RequestJournal } from '../../src/operations/send/request-journal.ts';
import { type Call, createRuntime, type Runtime } from '../../src/operations/runtime.ts';

/** A runtime for operations on the real clock. `folder` is for request ids; the first one creates it. */
export function testRuntime(fleet: Fleet, folder = '/nonexistent/requests', approve: Approver = 'ask'): Runtime {
  return createRuntime(fleet, systemClock, {
    approvals: { approve, approvalRules: [] },
    journal: new RequestJournal(folder, systemClock),
  });
}

/** A fleet of one source on the real clock, not started. Its own scans are an hour apart. */
export function testFleet(source: DiscoverySource, healthCheckTimeoutMs = 20_000, onChange?: () => void): LiveFleet {
  return new LiveFleet({
    settings: { discoveryIntervalMs: 3_600_000, healthCheckTimeoutMs, healthConcurrency: 8 },
    sources: [source],
    resolveCredential: () => Promise.resolve(undefined),
    clock: systemClock,
    logger: silentLogger,
    ...(onChange && { onChange }),
  });
}

export function testRegistrySource(directory: string, hostname = 'here'): DiscoverySource {
  const dependencies = { logger: silentLogger, uid: process.geteuid?.(), hostname };
  return createRegistrySource({ directory, explicit: true }, dependencies);
}

/** A call with a deadline in one minute, on the real clock. */
export function testCall(extra: Partial<Call> = {}): Call {
  return {
    signal: new AbortController().signal,
    deadlineMs: systemClock.monotonic() + 60_000,
    onProgress: () => {},
    ...extra,
  };
}
