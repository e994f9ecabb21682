/** Asks a Node process that was started with `--inspect` for its heap: nothing in the program is there for this. */
export interface Inspector {
  /** Bytes in use after a full collection. */
  heapBytes(): Promise<number>;
  close(): void;
}

const ANSWER_MS = 30_000;
/** One collection can leave what finalizers hold on to. */
const COLLECTIONS = 3;

/** `port` is where the process was told to listen. Rejects when nothing answers there. */
export async function openInspector(port: number): Promise<Inspector> {
  const list = (await (await fetch(`http://127.0.0.1:${port}/json/list`)).json()) as { webSocketDebuggerUrl: string }[];
  const socket = new WebSocket(list[0]?.webSocketDebuggerUrl ?? '');
  await new Promise<void>((resolve, reject) => {
    socket.addEventListener('open', () => resolve(), { once: true });
    socket.addEventListener('error', () => reject(new Error('the inspector cannot be reached')), { once: true });
  });
  let lastId = 0;
  const ask = (method: string): Promise<Record<string, number>> =>
    new Promise((resolve, reject) => {
      const id = ++lastId;
      const timer = setTimeout(() => reject(new Error(`${method} took longer than ${ANSWER_MS} ms`)), ANSWER_MS);
      const onMessage = ({ data }: MessageEvent) => {
        const answer = JSON.parse(String(data)) as { id?: number; result?: Record<string, number> };
        if (answer.id !== id) return;
        clearTimeout(timer);
        socket.removeEventListener('message', onMessage);
        resolve(answer.result ?? {});
      };
      socket.addEventListener('message', onMessage);
      socket.send(JSON.stringify({ id, method }));
    });
  return {
    async heapBytes() {
      for (let i = 0; i < COLLECTIONS; i++) await ask('HeapProfiler.collectGarbage');
      const { usedSize } = await ask('Runtime.getHeapUsage');
      if (usedSize === undefined) throw new Error('the inspector did not tell the size of the heap');
      return usedSize;
    },
    close: () => socket.close(),
  };
}
