import { json, type Script } from './upstream.ts';

/** A server that keeps the responses that it made, as vLLM does. */
export function responsesUpstream(name: string): Script {
  const made = new Set<string>();
  return (received) => {
    const { method, url, response } = received;
    if (method === 'POST' && url === '/v1/responses') {
      const id = `resp_${name}${made.size}`;
      made.add(id);
      if (!received.body.includes('"stream":true')) return json(`{"id":"${id}","object":"response"}`)(received);
      response.writeHead(200, { 'content-type': 'text/event-stream' });
      response.write(`event: response.created\ndata: {"response":{"i`);
      setImmediate(() => response.end(`d":"${id}"},"type":"response.created"}\n\n`));
      return undefined;
    }
    const id = url.split('/')[3]!;
    if (!made.has(id)) return json('{"error":{}}', 404)(received);
    return json(JSON.stringify({ id, from: name, path: url, method }))(received);
  };
}
