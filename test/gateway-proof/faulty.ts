import { type AddressInfo, createServer, type Socket } from 'node:net';

/** One connection to the faulty server whose request has come, head and body. */
export interface Exchange {
  socket: Socket;
  /** Resolves when the gateway closes the connection. */
  closed: Promise<void>;
}

/** What is done with a request, below HTTP. */
export type Fault = (exchange: Exchange) => void | Promise<void>;

export interface Faulty {
  url: string;
  fault: Fault;
  exchanges: Exchange[];
  close(): Promise<void>;
}

/** A server that speaks whatever a fault makes it speak. `GET /health` and `GET /v1/models` are answered as they should be. */
export async function createFaulty(fault: Fault): Promise<Faulty> {
  const sockets = new Set<Socket>();
  const server = createServer((socket) => {
    sockets.add(socket);
    const closed = new Promise<void>((resolve) => socket.once('close', () => resolve()));
    void closed.then(() => sockets.delete(socket));
    socket.on('error', () => {});
    let text = '';
    socket.on('data', (chunk: Buffer) => {
      text += chunk.toString('latin1');
      const end = text.indexOf('\r\n\r\n');
      if (end === -1) return;
      const length = Number(/content-length: (\d+)/i.exec(text)?.[1] ?? 0);
      if (text.length < end + 4 + length) return;
      const [line = ''] = text.split('\r\n');
      text = text.slice(end + 4 + length);
      if (line.startsWith('GET /')) {
        const body = line.includes('models') ? '{"object":"list","data":[{"id":"m","object":"model"}]}' : '';
        socket.write(
          `HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: ${body.length}\r\n\r\n${body}`,
        );
        return;
      }
      const exchange = { socket, closed };
      faulty.exchanges.push(exchange);
      void faulty.fault(exchange);
    });
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  const faulty: Faulty = {
    url: `http://127.0.0.1:${(server.address() as AddressInfo).port}`,
    fault,
    exchanges: [],
    close: () =>
      new Promise((resolve) => {
        for (const socket of sockets) socket.destroy();
        server.close(() => resolve());
      }),
  };
  return faulty;
}

export const STREAM_HEAD = 'HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n';
export const JSON_HEAD = 'HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ntransfer-encoding: chunked\r\n\r\n';

export function chunk(text: string): string {
  return `${Buffer.byteLength(text).toString(16)}\r\n${text}\r\n`;
}
