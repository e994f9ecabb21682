import type { Backend } from './backend.ts';

/** So many conversations are remembered; the one that was quiet longest is forgotten first. */
const MAX_HOMES = 100_000;

/** Where the last turn of each conversation went: its cache is there, also when that was not the backend of its hash. */
export interface Homes {
  of(conversation: number): Backend | undefined;
  moved(conversation: number, backend: Backend): void;
}

export function createHomes(): Homes {
  const homes = new Map<number, Backend>();
  return {
    of: (conversation) => homes.get(conversation),
    moved(conversation, backend) {
      homes.delete(conversation);
      homes.set(conversation, backend);
      if (homes.size <= MAX_HOMES) return;
      for (const oldest of homes.keys()) {
        homes.delete(oldest);
        return;
      }
    },
  };
}
