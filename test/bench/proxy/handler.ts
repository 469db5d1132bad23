/** `createProxyHandler` as it comes. */
import { createProxyHandler } from 'checkups/undici'
import { checkups, listen } from './child.js'

listen(createProxyHandler(checkups))
