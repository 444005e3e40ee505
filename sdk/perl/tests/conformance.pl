#!/usr/bin/perl

# The conformance program in Perl; what it does is written down in
# tests/integration/sdk/scenario.py.

use strict;
use warnings;
use utf8;

use Einhorn::Worker qw(:all);
use IO::Socket::IP ();
use JSON::PP ();
use Time::HiRes qw(sleep);

STDOUT->autoflush(1);
$SIG{PIPE} = 'IGNORE';

sub json { return JSON::PP->new->ascii->canonical->encode(shift) }
sub boolean { return shift() ? JSON::PP::true() : JSON::PP::false() }

# Why it fails; undef if it does not.
sub failure {
    my ($call) = @_;
    return undef if eval { $call->(); 1 };
    chomp(my $error = $@);
    return $error;
}

sub tell_all {
    my $listener;
    my $which = $ENV{SDK_SOCKET} // 0;
    my $error = failure(sub { $listener = listener($which) });
    print json({
        worker => boolean(is_worker()),
        why    => failure(\&require_worker),
        index  => worker_index() // -1,
        count  => 0 + socket_count(),
        fd     => $listener ? fileno $listener : -1,
        error  => $error,
        ack    => boolean(ack()),
        ping   => boolean(ping(request_id => 'x', busy => 0)),
        status => boolean(status('x')),
    }), "\n";
    return;
}

sub wait_for_file {
    my ($file) = @_;
    open my $begun, '>', "$file.begun" or die "$file.begun: $!\n";
    sleep 0.005 until -e $file;
    return;
}

sub act {
    my ($path) = @_;
    return ack($ENV{SDK_ACK} // 'auto') if $path eq '/ack';
    return ping(request_id => qq(100%25 "sure"\nü), busy => 1, status => 'serving')
        if $path eq '/ping';
    return status('warming up') if $path eq '/status';
    wait_for_file($1) if $path =~ m{\A/slow\?(.*)};
    return 0;
}

sub serve {
    my ($client) = @_;
    my $request = '';
    while ($request !~ /\r\n\r\n/) {
        sysread $client, $request, 4096, length $request or return;
    }
    my $sent = eval { boolean(act((split / /, $request)[1])) };
    if (!defined $sent) {
        print {*STDERR} $@;
        $sent = 'error';
    }
    my $body = json({
        pid => 0 + $$, index => worker_index(), worker => boolean(is_worker()), sent => $sent,
    });
    my $length = length $body;
    print {$client}
        "HTTP/1.1 200 OK\r\nContent-Length: $length\r\nConnection: close\r\n\r\n$body";
    return;
}

if (@ARGV && $ARGV[0] eq 'tell') {
    tell_all();
    exit 0;
}

on_stop();
my $listener;
if (socket_count()) {
    $listener = listener($ENV{SDK_SOCKET} // 0);
} else {
    $listener = IO::Socket::IP->new(LocalHost => '127.0.0.1', LocalPort => 0, Listen => 100)
        or die "listen: $@\n";
    print 'listening on ', $listener->sockport, "\n";
}
ack($ENV{SDK_ACK} // 'auto') if ($ENV{SDK_ACK_AT} // 'start') eq 'start';
while (my $client = next_connection($listener)) {
    serve($client);
    close $client;
}
