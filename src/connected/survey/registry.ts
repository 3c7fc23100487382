import { chooseDirectory, type RegistryPlace } from './registry-place.ts';
import type { Removal, RemovalOrder, RegistrySurvey } from './registry-survey.ts';
import { removeFromRegistry } from './remove.ts';
import { takeSurvey } from './take-survey.ts';

/** A registry directory on this machine or on the relay. Calls reject with a reason. */
export interface Registry {
  survey(signal: AbortSignal): Promise<RegistrySurvey>;
  /** Carries out the orders one after another, and resolves with the result of each. */
  remove(orders: readonly RemovalOrder[], signal: AbortSignal): Promise<readonly Removal[]>;
}

export function localRegistry(place: RegistryPlace): Registry {
  return {
    survey: async (signal) => takeSurvey(await chooseDirectory(place), signal),
    remove: async (orders, signal) => {
      const directory = await chooseDirectory(place);
      const removals: Removal[] = [];
      for (const order of orders) {
        if (signal.aborted) removals.push({ removed: false, reason: 'it was interrupted' });
        else removals.push(await removeFromRegistry(directory, order));
      }
      return removals;
    },
  };
}
