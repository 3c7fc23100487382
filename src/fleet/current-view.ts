import type { EndpointRecord } from './endpoint-record.ts';
import type { EndpointTable } from './endpoint-table.ts';
import { buildView, EMPTY_VIEW, type View, type ViewInput } from './view.ts';

/** Removed registrations kept for the next view, which shows when they were last seen. */
const MAX_REMOVED = 1000;

/** The view of a table, rebuilt on demand if it is out of date. */
export class CurrentView {
  readonly #table: EndpointTable;
  readonly #input: () => Pick<ViewInput, 'proofs' | 'returning' | 'sources'>;
  #removed = new Map<string, EndpointRecord>();
  #view: View = EMPTY_VIEW;
  #outdated = true;

  constructor(table: EndpointTable, input: () => Pick<ViewInput, 'proofs' | 'returning' | 'sources'>) {
    this.#table = table;
    this.#input = input;
  }

  outdate(): void {
    this.#outdated = true;
  }

  /** Keeps a removed record for one more view. */
  remember(removed: EndpointRecord): void {
    // If nobody reads a view for long, removed records must not pile up.
    if (this.#removed.size >= MAX_REMOVED) this.get();
    this.#removed.set(removed.id, removed);
    this.outdate();
  }

  get(): View {
    if (!this.#outdated) return this.#view;
    this.#view = buildView(this.#view, {
      ...this.#input(),
      records: this.#table.all(),
      recordOf: (id) => {
        const registered = this.#table.get(id);
        const record = registered ?? this.#removed.get(id);
        return record === undefined ? undefined : { record, registered: registered !== undefined };
      },
    });
    this.#removed = new Map();
    this.#outdated = false;
    return this.#view;
  }
}
