// An HTTP server on the channel that was inherited as descriptor 0. Told to leave by TERM, it takes
// no more connections, and loses none that it took.

import java.io.IOException;
import java.net.UnixDomainSocketAddress;
import java.nio.ByteBuffer;
import java.nio.channels.SelectionKey;
import java.nio.channels.Selector;
import java.nio.channels.ServerSocketChannel;
import java.nio.channels.SocketChannel;
import java.nio.charset.StandardCharsets;
import java.util.concurrent.CountDownLatch;
import java.util.concurrent.ExecutorService;
import java.util.concurrent.Executors;
import java.util.concurrent.TimeUnit;

public class Server {
  private static volatile boolean stopping;

  public static void main(String[] arguments) throws Exception {
    if (!(System.inheritedChannel() instanceof ServerSocketChannel listener)) {
      System.err.println("descriptor 0 is no listening socket: start it with `run`");
      System.exit(1);
      return;
    }
    listener.configureBlocking(false);
    Selector selector = Selector.open();
    listener.register(selector, SelectionKey.OP_ACCEPT);

    CountDownLatch finished = new CountDownLatch(1);
    Runtime.getRuntime().addShutdownHook(new Thread(() -> {
      stopping = true;
      selector.wakeup();
      try {
        finished.await();
      } catch (InterruptedException ignored) {
        Thread.currentThread().interrupt();
      }
    }));
    ExecutorService threads = Executors.newFixedThreadPool(16);
    acknowledge();
    while (!stopping) {
      selector.select();
      selector.selectedKeys().clear();
      for (SocketChannel client; !stopping && (client = listener.accept()) != null;) {
        SocketChannel taken = client;
        threads.execute(() -> answer(taken));
      }
    }
    threads.shutdown();
    threads.awaitTermination(1, TimeUnit.HOURS);
    finished.countDown();
  }

  // Says that this worker is up, over Einhorn's command socket: no library is needed for that.
  private static void acknowledge() throws IOException {
    String path = System.getenv("EINHORN_SOCK_PATH");
    if (path == null) return;
    String line = "{\"command\":\"worker:ack\",\"pid\":" + ProcessHandle.current().pid() + "}\n";
    try (SocketChannel master = SocketChannel.open(UnixDomainSocketAddress.of(path))) {
      master.write(ByteBuffer.wrap(line.getBytes(StandardCharsets.UTF_8)));
    }
  }

  private static void answer(SocketChannel client) {
    try (client) {
      ByteBuffer buffer = ByteBuffer.allocate(8192);
      while (!new String(buffer.array(), 0, buffer.position(), StandardCharsets.ISO_8859_1)
          .contains("\r\n\r\n")) {
        if (client.read(buffer) < 0) return;
      }
      String body = "{\"pid\":" + ProcessHandle.current().pid() + ",\"hello\":\"from Java\"}\n";
      String head = "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nConnection: close\r\n"
          + "Content-Length: " + body.length() + "\r\n\r\n";
      ByteBuffer reply = ByteBuffer.wrap((head + body).getBytes(StandardCharsets.UTF_8));
      while (reply.hasRemaining()) client.write(reply);
    } catch (IOException broken) {
      System.err.println("a client left: " + broken.getMessage());
    }
  }
}
