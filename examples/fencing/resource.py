#!/usr/bin/python3
"""An HTTP resource that is guarded by tokens: PUT with the header Fencing-Token. It keeps the highest token that wrote and
answers 412 to a lower one, 428 to none. Prints its port; `resource.py PORT`, 0 for any.
"""
import http.server
import sys
import threading

state = {"token": 0, "text": ""}
lock = threading.Lock()  # the look and the write are one step


class Resource(http.server.BaseHTTPRequestHandler):
    def do_PUT(self):
        text = self.rfile.read(int(self.headers.get("Content-Length", 0))).decode()
        token = self.headers.get("Fencing-Token", "")
        if not token.isdigit():
            return self.answer(428, "a Fencing-Token is required\n")
        with lock:
            if int(token) < state["token"]:
                return self.answer(412, f"token {token} is stale: {state['token']} was here\n")
            state.update(token=int(token), text=text)
        return self.answer(200, "written\n")

    def do_GET(self):
        with lock:
            self.answer(200, f"{state['token']}\n{state['text']}\n")

    def answer(self, status, text):
        self.send_response(status)
        self.send_header("Content-Length", str(len(text.encode())))
        self.end_headers()
        self.wfile.write(text.encode())

    def log_message(self, *_):
        pass


if __name__ == "__main__":
    server = http.server.ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Resource)
    print(server.server_port, flush=True)
    server.serve_forever()
