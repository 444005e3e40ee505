package Einhorn::Worker;

use strict;
use warnings;

use Errno qw(EAGAIN ECONNABORTED EINTR EWOULDBLOCK);
use Exporter qw(import);
use Fcntl qw(F_SETFD FD_CLOEXEC);
use IO::Handle ();
use IO::Select ();
use IO::Socket::IP   ();
use IO::Socket::UNIX ();
use JSON::PP ();
use POSIX ();
use Socket qw(AF_UNIX MSG_NOSIGNAL SOCK_DGRAM SOCK_STREAM pack_sockaddr_un sockaddr_family);

our $VERSION = '0.1.0';

our @EXPORT_OK = qw(is_worker require_worker worker_index socket_count socket_names socket_fd
    listener ack ping notify status on_stop stopping next_connection);
our %EXPORT_TAGS = (all => \@EXPORT_OK);

# --- who am I --------------------------------------------------------------------------------------

sub _number {
    my ($variable) = @_;
    my $text = $ENV{$variable};
    return defined $text && $text =~ /\A[0-9]+\z/ ? 0 + $text : undef;
}

sub is_worker {
    my $master = _number('EINHORN_MASTER_PID');
    return defined $master && $master == getppid() ? 1 : 0;
}

sub require_worker {
    return 1 if is_worker();
    my $master = $ENV{EINHORN_MASTER_PID};
    die 'not a worker of Einhorn: EINHORN_MASTER_PID is '
        . (defined $master ? "$master, but the parent is " . getppid() : 'not set') . "\n";
}

sub worker_index { return _number('EINHORN_CHILD_INDEX') }

# --- sockets ---------------------------------------------------------------------------------------

# systemd's variables count only for the process they were made for.
sub _listen_fds {
    return (_number('LISTEN_PID') // 0) == $$ ? _number('LISTEN_FDS') // 0 : 0;
}

sub socket_count { return _number('EINHORN_FD_COUNT') // _listen_fds() }

sub socket_names {
    my @names = split /:/, $ENV{LISTEN_FDNAMES} // '';
    my $count = socket_count();
    return @names > $count ? @names[0 .. $count - 1] : @names;
}

sub socket_fd {
    my $which = shift // 0;
    if ($which !~ /\A-?[0-9]+\z/) {
        my @names = socket_names();
        my ($place) = grep { $names[$_] eq $which } 0 .. $#names;
        defined $place
            or die qq(there is no socket named "$which"; there are: ),
            join(':', @names) || 'none', "\n";
        $which = $place;
    }
    my $count = socket_count();
    die "there is no socket $which: $count were handed in (einhorn -b)\n"
        if $which < 0 || $which >= $count;
    return 3 + $which if !defined $ENV{EINHORN_FD_COUNT};
    return _number("EINHORN_FD_$which") // die "EINHORN_FD_$which is not set, or is no number\n";
}

sub listener {
    my $which = shift // 0;
    my $fd    = socket_fd($which);
    my $plain = IO::Handle->new_from_fd($fd, '+<');
    my $name  = $plain && getsockname $plain
        or die "socket $which: descriptor $fd is no open socket: $!\n";
    my $class    = sockaddr_family($name) == AF_UNIX ? 'IO::Socket::UNIX' : 'IO::Socket::IP';
    my $listener = bless $plain, $class;
    fcntl $listener, F_SETFD, FD_CLOEXEC or die "descriptor $fd: $!\n";
    $listener->blocking(0);
    return $listener;
}

# --- telling Einhorn -------------------------------------------------------------------------------

sub _connect {
    my ($type, $path) = @_;
    (my $name = $path) =~ s/\A@/\0/;
    socket my $socket, AF_UNIX, $type, 0 or die "socket: $!\n";
    connect $socket, pack_sockaddr_un($name) or die "could not connect to $path: $!\n";
    return $socket;
}

sub _write {
    my ($socket, $bytes, $where) = @_;
    my $sent = send $socket, $bytes, MSG_NOSIGNAL;
    die "could not send to $where: $!\n" if !defined $sent || $sent != length $bytes;
    return 1;
}

sub _send_by_path {
    my ($line) = @_;
    my $path = $ENV{EINHORN_SOCK_PATH} // die "EINHORN_SOCK_PATH is not set\n";
    return _write(_connect(SOCK_STREAM, $path), $line, $path);
}

sub _send_by_descriptor {
    my ($line) = @_;
    my $fd = _number('EINHORN_SOCK_FD')
        // die "EINHORN_SOCK_FD is not set (einhorn -g sets it)\n";
    open my $socket, '+<&', $fd or die "EINHORN_SOCK_FD: $!\n";
    return _write($socket, $line, 'EINHORN_SOCK_FD');
}

sub _send {
    my ($via, $message) = @_;
    my $line = JSON::PP->new->ascii->canonical->encode($message) . "\n";
    # It would be taken for an escape of the line, so it becomes one of JSON.
    $line =~ s/%/\\u0025/g;
    return _send_by_descriptor($line) if $via eq 'fd';
    return 1 if eval { _send_by_path($line) };
    my $error = $@;
    die $error if $via ne 'auto' || !defined $ENV{EINHORN_SOCK_FD};
    return _send_by_descriptor($line);
}

sub ack {
    my $via = shift // 'auto';
    die qq(via is "auto", "path", "fd" or "notify", not "$via"\n)
        if $via !~ /\A(?:auto|path|fd|notify)\z/;
    return 0 if !is_worker();
    return notify('READY=1') if $via eq 'notify';
    return _send($via, { command => 'worker:ack', pid => 0 + $$ });
}

sub ping {
    my (%told) = @_;
    return 0 if !is_worker();
    my %message = (command => 'worker:ping', pid => 0 + $$);
    $message{request_id} = $told{request_id} if defined $told{request_id};
    $message{status}     = $told{status}     if defined $told{status};
    $message{busy} = $told{busy} ? JSON::PP::true() : JSON::PP::false() if defined $told{busy};
    return _send('auto', \%message);
}

sub notify {
    my ($assignments) = @_;
    my $path = $ENV{NOTIFY_SOCKET} // '';
    return 0 if $path eq '';
    utf8::encode($assignments) if utf8::is_utf8($assignments);
    return _write(_connect(SOCK_DGRAM, $path), $assignments, $path);
}

sub status {
    my ($text) = @_;
    $text =~ tr/\n/ /;
    return notify("STATUS=$text");
}

# --- leaving ---------------------------------------------------------------------------------------

my $stopping = 0;

sub on_stop {
    my $callback = ref $_[0] ? shift : undef;
    my $handler = sub {
        $stopping = 1;
        $callback->() if $callback;
    };
    # Not by %SIG: so a read that waits for the rest of a request goes on.
    my $action = POSIX::SigAction->new($handler, POSIX::SigSet->new, POSIX::SA_RESTART());
    $action->safe(1);
    for my $name (@_ ? @_ : 'USR2') {
        my $number = POSIX->can("SIG$name") or die "there is no signal $name\n";
        POSIX::sigaction($number->(), $action) or die "SIG$name: $!\n";
    }
    return;
}

sub stopping { return $stopping }

sub next_connection {
    my ($listener) = @_;
    my $select = IO::Select->new($listener);
    while (!$stopping) {
        # Perl handles signals between two instructions: one that comes just before the wait does
        # not end it, so it is a short one.
        $select->can_read(0.5) or next;
        last if $stopping;
        my $connection = $listener->accept;
        return $connection if $connection;
        # Another worker got it, or it is gone already.
        die "accept: $!\n" if !($!{EAGAIN} || $!{EWOULDBLOCK} || $!{EINTR} || $!{ECONNABORTED});
    }
    return;
}

1;

__END__

=encoding utf8

=head1 NAME

Einhorn::Worker - what a worker of Einhorn needs: its sockets, ACK, ping, graceful stop

=head1 SYNOPSIS

    use Einhorn::Worker qw(:all);

    on_stop();                        # SIGUSR2 means: finish and leave
    my $listener = listener('web');   # or listener(0)
    ack();
    while (my $connection = next_connection($listener)) {
        serve($connection);
    }

=head1 DESCRIPTION

Outside Einhorn C<is_worker> is false, and C<ack>, C<ping>, C<status> and C<notify> return 0 and
tell nobody, so that a program can be started by hand. What fails dies with a line that says why.
Nothing is exported unless asked for.

=head1 FUNCTIONS

=head2 Who am I

=over

=item is_worker()

True if Einhorn runs this process: C<EINHORN_MASTER_PID> names its parent.

=item require_worker()

Dies, with the reason, unless Einhorn runs this process.

=item worker_index()

This worker's index, unique among living workers of the pool; undef outside Einhorn.

=back

=head2 Sockets

=over

=item socket_count()

How many sockets were handed in, by Einhorn's C<-b> or by systemd.

=item socket_names()

Their names (C<-b ADDR,name=NAME>), in the order of C<-b>; "unknown" where none was given.

=item socket_fd($which)

The descriptor of a socket, by number (from 0, in the order of C<-b>; 0 if left out) or by name.

=item listener($which)

The socket itself, as an L<IO::Socket::IP> or L<IO::Socket::UNIX>. It is non-blocking, because several
workers wake up for one connection and only one gets it; C<next_connection> takes care of that.
Programs that this one starts do not inherit it.

=back

=head2 Telling Einhorn

=over

=item ack($via)

Says "I am ready". Returns 0, and says nothing, if this is no worker. C<$via> is C<auto> if left out:
the command socket, by its path or, if that can't be reached, by descriptor. C<path>: by
C<EINHORN_SOCK_PATH>. C<fd>: by C<EINHORN_SOCK_FD> (C<einhorn -g>), which is good for one message.
C<notify>: READY=1 to C<NOTIFY_SOCKET>, for C<einhorn -m notify>; the others are for C<-m manual>.

=item ping(request_id => $id, busy => $bool, status => $text)

Says "I am alive", and what this worker is at; each of the three may be left out. Returns 0 if this is
no worker.

=item status($text)

A line about this worker, shown by C<einhornsh -e status>. Returns 0 without C<NOTIFY_SOCKET>.

=item notify($assignments)

Sends assignments as sd_notify(3) does (C<READY=1>, C<WATCHDOG=1>). Returns 0 without
C<NOTIFY_SOCKET>.

=back

=head2 Leaving

=over

=item on_stop($callback, @signals)

From now on these signals (USR2 if none is named) ask for a graceful stop: C<stopping> is true,
C<next_connection> returns undef, and the callback is called. Both arguments may be left out.

=item stopping()

Was a stop asked for?

=item next_connection($listener)

The next connection of a listener; undef once a stop was asked for.

=back

=cut
