#!/usr/bin/env perl
# Einhorn's zygote for Perl: loads code once and forks workers from it; see docs/preload.md.
#
#   preload.pl CODE SCRIPT [ARGUMENT...]
package EinhornPreload;
use strict;
use warnings;
use POSIX ();

my %prctl = (x86_64 => 157, aarch64 => 167);
my $master;

sub say_lines {
    my (@lines) = @_;
    my @text;
    while (my ($key, $value) = splice @lines, 0, 2) {
        $value = '' unless defined $value;
        $value =~ s/\s+/ /g;
        push @text, "$key=$value";
    }
    return 1 if syswrite $master, join "\n", @text;
    print STDERR "einhorn: the line to Einhorn is lost: $!\n";
    POSIX::_exit(76);
}

sub refuse {
    my ($text) = @_;
    say_lines(ERRNO => 22, STATUS => $text);
    POSIX::_exit(1);
}

sub listeners {
    my $count = $ENV{EINHORN_FD_COUNT} || 0;
    return join ' ', map { readlink("/proc/self/fd/$ENV{\"EINHORN_FD_$_\"}") || 'none' } 0 .. $count - 1;
}

sub load_code {
    my ($path) = @_;
    local ($@, $!);
    package main;
    my $done = do $path;
    EinhornPreload::refuse("$@") if $@;
    EinhornPreload::refuse("$path: $!") if !defined $done && $!;
    return;
}

# In a new worker: from here on it is one.
sub be_worker {
    my ($parent, %order) = @_;
    select undef, undef, undef, 0.0001 while getppid() == $parent;
    POSIX::setpgid(0, 0);
    srand;
    $ENV{EINHORN_MASTER_PID} = getppid();
    $ENV{LISTEN_PID} = $$ if exists $ENV{LISTEN_FDS};
    my $number = delete $order{FORK};
    my $signal = delete $order{DEATH_SIGNAL};
    my $connect = delete $order{CONNECT};
    if ($signal && (my $call = $prctl{(POSIX::uname())[4]})) {
        my $guard = getppid();
        syscall($call, 1, $signal + 0, 0, 0, 0);
        POSIX::_exit(1) if getppid() != $guard;
    }
    $ENV{$_} = $order{$_} for keys %order;
    POSIX::_exit(1) unless syswrite $master, "FORKED=$number";    # else nobody knows of this process
    close $master;
    if (defined $connect) {
        require Socket;
        socket(our $command, Socket::AF_UNIX(), Socket::SOCK_STREAM(), 0) or die "socket: $!";
        connect($command, Socket::pack_sockaddr_un($connect)) or die "connect $connect: $!";
        require Fcntl;
        fcntl($command, Fcntl::F_SETFD(), 0);
        $ENV{EINHORN_SOCK_FD} = fileno $command;
    }
    return;
}

# True in the new worker. It is a child of neither this process nor the one in between, so Einhorn
# becomes its parent.
sub fork_twice {
    my ($number, %order) = @_;
    STDOUT->flush;
    STDERR->flush;
    my $between = fork;
    return say_lines(FAILED => $number, ERRNO => $! + 0, STATUS => "fork: $!") && 0 unless defined $between;
    if ($between == 0) {
        my $parent = $$;
        my $worker = fork;
        POSIX::_exit($! + 0) unless defined $worker;
        POSIX::_exit(0) if $worker;
        be_worker($parent, %order);
        return 1;
    }
    if (waitpid($between, 0) == $between && $? != 0) {
        local $! = $? >> 8;
        say_lines(FAILED => $number, ERRNO => $! + 0, STATUS => "fork: $!");
    }
    return 0;
}

sub serve {
    my $last = 0;
    while (1) {
        my $count = sysread $master, my $message, 65_536;
        next if !defined $count && $!{EINTR};
        POSIX::_exit(0) unless $count;
        my %order = map { /\A([^=]+)=(.*)\z/s ? ($1, $2) : () } split /\n/, $message;
        my $number = $order{FORK} || 0;
        next if $number <= $last;    # said again by a new master
        $last = $number;
        return if fork_twice($number, %order);
    }
}

require IO::Handle;
require Errno;
open $master, '+<&=', delete $ENV{EINHORN_ZYGOTE_FD} or die "EINHORN_ZYGOTE_FD: $!";
require Fcntl;
fcntl $master, Fcntl::F_SETFL(), Fcntl::O_RDWR();    # it waits
fcntl $master, Fcntl::F_SETFD(), Fcntl::FD_CLOEXEC();
delete $ENV{EINHORN_GC_BEFORE_FORK};
my $path = shift @ARGV;
my $script = @ARGV ? shift @ARGV : $path;
my ($me, $before) = ($$, listeners());
my $loaded = 0;

# The code's own `exit` comes here.
END {
    if (!$loaded && defined $master) {
        if ($$ == $me) {
            refuse("the code called exit ($?) while it was loaded");
        }
        POSIX::_exit($?);
    }
}
{
    local $0 = $path;
    unshift @INC, $path =~ m{\A(.*)/} ? $1 : '.';
    load_code($path);
}
if ($$ != $me) {
    print STDERR "einhorn: $path has forked while it was loaded; this child of it ends\n";
    POSIX::_exit(1);
}
refuse("$path has no sub einhorn_main") unless main->can('einhorn_main');
refuse('the code closed a socket of -b while it was loaded') if listeners() ne $before;
$loaded = 1;
say_lines(READY => 1);
serve();
$0 = $script;
main::einhorn_main();
