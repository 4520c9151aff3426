// Reads one JSON line per request from standard input and answers each with one line: the SDK's own signer and validator.
'use strict';

const { signer: JwsSigner, validator: JwsValidator } = require('@mojaloop/sdk-standard-components/src/lib/jws');

const silent = { isDebugEnabled: false, debug() {}, error() {}, child() { return silent; } };

// What an FSP sends: the SDK turns the body into the bytes that it signs and sends.
function sign({ key, method, uri, headers, body }) {
    const request = { method, uri, headers, body };
    new JwsSigner({ logger: silent, signingKey: key }).sign(request);
    return { headers: request.headers, body: request.body };
}

// What an FSP does with what it gets: its server has parsed the JSON before the SDK sees it.
function validate({ keys, headers, body }) {
    try {
        new JwsValidator({ logger: silent, validationKeys: keys }).validate({ headers, body: JSON.parse(body) });
        return { valid: true };
    } catch (error) {
        return { valid: false, error: error.message };
    }
}

require('node:readline').createInterface({ input: process.stdin }).on('line', (line) => {
    const { act, ...request } = JSON.parse(line);
    process.stdout.write(`${JSON.stringify(act === 'sign' ? sign(request) : validate(request))}\n`);
});
