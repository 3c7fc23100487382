import type { Candidate } from '../model/candidate.ts';
import { currentReport, type Report } from '../model/report.ts';
import { isKnownService } from './opencode-2.ts';
import { unsupportedReason } from './supported-version.ts';

/** The current report of the server's watcher; undefined if there is none, or if its version is unsupported, which a probe explains. */
export function usableReport(candidate: Candidate): Report | undefined {
  const report = currentReport(candidate);
  if (report === undefined) return undefined;
  const { dialect, version } = report.result;
  const isSupported =
    dialect === 'opencode-1'
      ? unsupportedReason(version) === undefined
      : dialect === 'opencode-2-preview' || isKnownService(version);
  return isSupported ? report : undefined;
}
