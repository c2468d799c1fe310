"""The command line of AVTS for TensorFlow: the program that an installed package calls `avts`."""

from avts_tf.command_line import run

if __name__ == '__main__':
    run()
