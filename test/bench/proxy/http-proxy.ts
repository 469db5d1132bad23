/** http-proxy, whose targets this library chooses: `balanceProxy` as it comes. */
import httpProxy from 'http-proxy'
import { balanceProxy } from 'checkups/http-proxy'
import { checkups, listen } from './child.js'

listen(balanceProxy(checkups, httpProxy.createProxyServer()).web)
