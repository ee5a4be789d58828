# A Twisted application, as twistd runs it:
#
#     twistd -ny examples/web.tac
#     twisted-cluster run -w 2 examples/web.tac
#     curl localhost:8080

import os

from twisted.application.internet import StreamServerEndpointService
from twisted.application.service import Application
from twisted.internet import reactor
from twisted.internet.endpoints import serverFromString
from twisted.web.resource import Resource
from twisted.web.server import Site


class Hello(Resource):
    isLeaf = True

    def render_GET(self, request):
        return b"Hello from process %d!\n" % os.getpid()


where = os.environ.get("LISTEN", "tcp:8080:interface=127.0.0.1")
application = Application("web")
service = StreamServerEndpointService(serverFromString(reactor, where), Site(Hello()))
service.setServiceParent(application)
